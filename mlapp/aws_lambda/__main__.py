"""`python -m mlapp.aws_lambda [--bundle FOLDER]`: the entry point of an image on AWS Lambda."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mlapp.aws_lambda.loop import ADDRESS_VARIABLE, run_lambda_loop
from mlapp.aws_lambda.runtime_api import RuntimeApi
from mlapp.errors import MlappError
from mlapp.printable_text import make_printable_line, set_up_logging

IMAGE = Path("/app")
"""The folder of the bundle in an image."""


def main() -> int:
    """Run the loop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mlapp.aws_lambda", description="Answer the events of AWS Lambda.")
    parser.add_argument(
        "--bundle",
        type=Path,
        help="Folder of a bundle. By default /app if it is a bundle, otherwise the project in the current folder.",
    )
    bundle: Path | None = parser.parse_args().bundle
    if bundle is None and (IMAGE / "bundle.json").is_file():
        bundle = IMAGE
    set_up_logging("%(levelname)s %(name)s %(message)s")
    address = os.environ.get(ADDRESS_VARIABLE)
    if not address:
        print(f"{ADDRESS_VARIABLE} is not set, so this process does not run in AWS Lambda.", file=sys.stderr)
        print("Deploy the function, or run it in AWS's runtime interface emulator: aws-lambda-rie python -m "
        "mlapp.aws_lambda.",
              file=sys.stderr)  # fmt: skip
        return 2
    try:
        run_lambda_loop(RuntimeApi(address), bundle)
    except MlappError as error:
        print(f"{make_printable_line(error.what)}\n{make_printable_line(error.todo)}", file=sys.stderr)
    except OSError as error:
        print(f"Lambda's Runtime API at {address} does not answer: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
