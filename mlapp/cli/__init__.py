"""The command line: one file per command."""

import sys

import mlapp

if not hasattr(mlapp, "_PLACES"):  # another package has overwritten our `mlapp/__init__.py`
    sys.exit(
        f"Error: {mlapp.__file__} belongs to another package: `mlapp` on PyPI is not this one.\n"
        "Take it away: pip uninstall -y mlapp && pip install --force-reinstall --no-deps mlapp-kit"
    )
