"""`mlapp models delete` and `prune`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Json, Version, Yes
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.store import Manifest, Store


def delete_version(version: Version, yes: Yes = False) -> None:
    """Delete a version and its files. Its number is never reused.

    Example:

      mlapp models delete 3
    """
    from mlapp.project import Project

    project = Project.find()
    number = project.store.resolve(project.name, version)
    output.ask_confirmation(f"Permanently delete version {number} of {project.name}?", yes=yes)
    project.store.delete(project.name, number)
    output.print_note(f"Version {number} of {project.name} is deleted.")


def prune_versions(
    keep: Annotated[int, typer.Option(min=1, help="Number of newest versions to keep.")],
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the versions to delete without deleting them.")
    ] = False,
    json: Json = False,
) -> None:
    """Delete old versions that no alias points at.

    Examples:

      mlapp models prune --keep 10 --dry-run

      mlapp models prune --keep 10 --yes
    """
    from mlapp.project import Project

    project = Project.find()
    expendable = project.store.list_expendable(project.name, keep)
    numbers = ", ".join(str(version.version) for version in expendable)
    if expendable and not dry_run:
        output.ask_confirmation(f"Permanently delete these versions of {project.name}: {numbers}?", yes=yes)
    pruned = (
        expendable if dry_run else [version for version in expendable if _delete_unless_aliased(project.store, version)]
    )
    size = sum(file.size for version in pruned for file in version.files.values())
    if json:
        output.print_json({"versions": [version.version for version in pruned], "bytes": size, "deleted": not dry_run})
        return
    if not expendable:
        output.print_note(
            f"Nothing to delete: {project.name} has no version besides the newest {keep} and those with an alias."
        )
    elif dry_run:
        output.print_note(f"Versions to delete: {len(pruned)}, with {size / 1e6:.1f} MB: {numbers}.")
    else:
        output.print_note(f"Versions deleted: {len(pruned)}, with {size / 1e6:.1f} MB.")


def _delete_unless_aliased(store: Store, version: Manifest) -> bool:
    """Delete a version; False if an alias points at it now, or if it does not exist."""
    try:
        store.delete(version.app, version.version)
    except UsageError as error:  # an alias moved to it meanwhile, or another process deleted it
        output.print_note(f"{error.what} It was left unchanged.")
        return False
    return True
