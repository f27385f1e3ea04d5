"""`python -m mlapp` is `mlapp`."""

from mlapp.cli.main import run

if __name__ == "__main__":
    run()
