"""`mlapp models pull` and `push`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Version
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.store import Store


def pull_version(
    version: Version,
    to: Annotated[str | None, typer.Option(help="Copy it to this store: a folder, or s3://bucket/prefix.")] = None,
) -> None:
    """Fetch a version, or copy it to another store.

    Checks each file against its SHA-256. Prints the folder of the files or, with --to, the number in the other store.

    Examples:

      mlapp models pull production

      mlapp models pull 7 --to ./models
    """
    from mlapp.project import Project

    project = Project.find()
    if to is None:
        with output.show_progress() as report:
            output.print_result(str(project.store.get(project.name, version, progress=report).files))
        return
    _transfer_version(project.name, project.store, version, project.open_store(to))


def push_version(
    version: Version,
    to: Annotated[str | None, typer.Option(help="A store: a folder, or s3://bucket/prefix. [`store:`]")] = None,
) -> None:
    """Copy a version to another store.

    Copies from the project's store to --to, or from the local folder to `store:`.

    The copy gets the next number of that store and keeps everything else. A version that is already there is not
    copied again. Prints the number.

    Examples:

      mlapp models push 7 --to s3://models/shared

      mlapp models push latest
    """
    from mlapp.config import Settings
    from mlapp.project import Project

    project = Project.find()
    source = project.open_store(Settings().store.url) if to is None else project.store
    _transfer_version(project.name, source, version, project.store if to is None else project.open_store(to))


def _transfer_version(app: str, source: Store, version: str, target: Store) -> None:
    if repr(source.storage) == repr(target.storage):
        raise UsageError(
            f"The version is in {source.storage!r} already.", "Give another store: --to s3://bucket/prefix."
        )
    manifest = source.manifest(app, source.resolve(app, version))
    number = target.find_number(manifest)
    if number is None:
        with output.show_progress() as report:
            number = target.import_version(source.get(app, manifest.version, progress=report), progress=report).version
        output.print_note(f"Version {manifest.version} of {app} is version {number} in {target.storage!r}.")
    else:
        output.print_note(f"Version {manifest.version} of {app} is in {target.storage!r} already, as version {number}.")
    output.print_result(str(number))
