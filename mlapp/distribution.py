"""The distribution of this mlapp: its name on a package index, and its version.

The command and the import name are `mlapp`. The distribution's name differs, because `mlapp` on PyPI is unrelated.
"""

from __future__ import annotations

from functools import cache

NAME = "mlapp-kit"
WHEEL_NAME = NAME.replace("-", "_")
"""The name as wheels and dist-info folders write it."""

LOCAL = "+local"
"""Suffix of the version of a wheel that is packed from an installation. PyPI accepts no such version (PEP 440), so no
package there can replace the wheel."""

FOREIGN = "mlapp"
"""An unrelated package on PyPI, which installs a module `mlapp` too."""


@cache
def version() -> str:
    """The version of the installed distribution; empty if mlapp is imported from a folder and not installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(NAME).removesuffix(LOCAL)
    except importlib.metadata.PackageNotFoundError:
        return ""


def find_foreign_distribution() -> str | None:
    """The version of the unrelated `mlapp` if it is installed too, or None."""
    import importlib.metadata

    try:
        return importlib.metadata.version(FOREIGN)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_own_distribution() -> None:
    """End the process if another package has overwritten `mlapp/__init__.py`; names it, and what to do.

    Its command replaces ours, and imports `mlapp.config` and `mlapp.cli`, which call this.
    """
    import sys

    package = sys.modules["mlapp"]
    if not hasattr(package, "_PLACES"):
        version = find_foreign_distribution()
        sys.exit(
            f"Error: {package.__file__} belongs to another package: "
            f"'{FOREIGN}' {f'{version} ' if version else ''}on PyPI is not this package, which is '{NAME}'.\n"
            f"Uninstall it, and reinstall {NAME}: {make_repair_command()}"
        )


def make_repair_command() -> str:
    """The command that uninstalls the unrelated package and restores the files that both contain."""
    return f"pip uninstall -y {FOREIGN} && pip install --force-reinstall --no-deps {_find_distribution_source()}"


def _find_distribution_source() -> str:
    """Where this distribution was installed from, as an argument of pip: PEP 610's record, otherwise its name."""
    import importlib.metadata
    import json

    try:
        record = json.loads(importlib.metadata.distribution(NAME).read_text("direct_url.json") or "{}")
    except importlib.metadata.PackageNotFoundError:
        record = {}
    if "vcs_info" in record:
        return f"'git+{record['url']}@{record['vcs_info']['commit_id']}'"
    editable = "-e " if record.get("dir_info", {}).get("editable") else ""
    return f"{editable}'{record['url'].removeprefix('file://')}'" if record else NAME


def install_command(extra: str) -> str:
    """The command that installs the requirements of an extra for the installed mlapp."""
    return f"pip install '{NAME}[{extra}]'"
