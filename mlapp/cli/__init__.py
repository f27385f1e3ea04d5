"""The command line: one file a command."""

import sys

import mlapp

if not hasattr(mlapp, "_PLACES"):  # another package has put its own `mlapp/__init__.py` in place of ours
    sys.exit(
        f"Error: {mlapp.__file__} belongs to another package: `mlapp` on PyPI is not this one.\n"
        "Take it away: pip uninstall -y mlapp && pip install --force-reinstall --no-deps mlapp-kit"
    )
