"""The distribution that this mlapp was installed from: its name on a package index, and its version.

Command and import name are `mlapp`; the distribution has a name of its own, as `mlapp` on PyPI is an unrelated package.
"""

from __future__ import annotations

from functools import cache

NAME = "mlapp-kit"
WHEEL_NAME = NAME.replace("-", "_")
"""The name as wheels and dist-info folders write it."""

LOCAL = "+local"
"""The end of the version of a wheel that is packed from an installation: PyPI takes no such version (PEP 440), so that
nothing there can stand in for it."""

FOREIGN = "mlapp"
"""An unrelated package on PyPI, which installs a module `mlapp` too."""


@cache
def version() -> str:
    """The version of the installed distribution; empty where mlapp is imported from a folder and not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(NAME).removesuffix(LOCAL)
    except importlib.metadata.PackageNotFoundError:
        return ""


def find_foreign() -> str | None:
    """The version of the unrelated `mlapp` that is installed beside this one; None when there is none."""
    import importlib.metadata

    try:
        return importlib.metadata.version(FOREIGN)
    except importlib.metadata.PackageNotFoundError:
        return None


def repair_command() -> str:
    """The command that takes the unrelated package away, and brings back the files that both have."""
    return f"pip uninstall -y {FOREIGN} && pip install --force-reinstall --no-deps {_place()}"


def _place() -> str:
    """Where this distribution was installed from, as pip takes it: PEP 610's record, else its name."""
    import importlib.metadata
    import json

    record = json.loads(importlib.metadata.distribution(NAME).read_text("direct_url.json") or "{}")
    if "vcs_info" in record:
        return f"'git+{record['url']}@{record['vcs_info']['commit_id']}'"
    editable = "-e " if record.get("dir_info", {}).get("editable") else ""
    return f"{editable}'{record['url'].removeprefix('file://')}'" if record else NAME


def install_command(extra: str) -> str:
    """The command that installs what an extra needs beside the mlapp that is installed."""
    return f"pip install '{NAME}[{extra}]'"
