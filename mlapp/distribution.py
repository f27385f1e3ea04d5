"""The distribution that this mlapp was installed from: its name on a package index, and its version.

Command and import name are `mlapp`; the distribution has a name of its own, as `mlapp` on PyPI is an unrelated package.
"""

from __future__ import annotations

from functools import cache

NAME = "mlapp-kit"
WHEEL_NAME = NAME.replace("-", "_")
"""The name as wheels and dist-info folders write it."""


@cache
def version() -> str:
    """The version of the installed distribution; empty where mlapp is imported from a folder and not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return ""


def install_command(extra: str) -> str:
    """The command that installs what an extra needs beside the mlapp that is installed."""
    return f"pip install '{NAME}[{extra}]'"
