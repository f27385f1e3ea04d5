"""`python -m mlapp` is `mlapp`."""

from mlapp.cli.main import run_cli

if __name__ == "__main__":
    run_cli()
