"""`mlapp models`: the model store"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Json, Yes
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlapp.errors import StoreError
    from mlapp.project import Project
    from mlapp.store import Manifest, Store

cli = typer.Typer(help="The model store: versions, and the aliases that name them.", no_args_is_help=True)
Version = Annotated[str, typer.Argument(help="A version, an alias or `latest`.")]
NEWEST = 50
"""Versions that a list shows: the time that it takes does not grow with the store."""


@cli.command("list")
def list_versions(
    sort: Annotated[str | None, typer.Option(help="Sort by a metric, best last; `-` before it turns it round.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only versions with this metric, as accuracy>=0.9; several must all hold.")
    ] = None,
    all_versions: Annotated[bool, typer.Option("--all", help=f"List all, and not only the newest {NEWEST}.")] = False,
    json: Json = False,
) -> None:
    """List the newest 50 versions, the newest last.

    --all, --sort, --where and --json take all versions.

    Examples:

      mlapp models list

      mlapp models list --sort accuracy --where 'accuracy>=0.9'
    """
    from mlapp.project import Project
    from mlapp.store.version_query import select_versions

    project = Project.find()
    damaged: list[StoreError] = []
    newest = None if all_versions or sort or where or json else NEWEST
    manifests = project.store.versions(project.name, damaged, newest=newest)
    versions = select_versions(manifests, sort=sort, where=where or [])
    aliases: dict[int, list[str]] = {}
    for alias, number in project.store.aliases(project.name, damaged).items():
        aliases.setdefault(number, []).append(alias)
    for error in damaged:
        output.print_note(f"{error.what} {error.todo}")
    if json:
        output.print_json(
            [
                {**_summarize_version(version), "aliases": sorted(aliases.get(version.version, []))}
                for version in versions
            ]
        )
        return
    metrics = list(dict.fromkeys(name for version in versions for name in version.headline))
    output.print_table(
        ["version", "created", "model", *metrics, "aliases"],
        [
            [
                version.version,
                f"{version.created:%Y-%m-%d %H:%M}",
                version.model,
                *(version.headline.get(name) for name in metrics),
                ", ".join(sorted(aliases.get(version.version, []))),
            ]
            for version in versions
        ],
    )
    if not versions:
        output.print_note(f"{project.name} has no such version. Train one: mlapp train")
    if len(manifests) == newest:
        output.print_note(f"These are the newest {newest}. List all: mlapp models list --all")


@cli.command("show")
def show_version(version: Version = "latest", json: Json = False) -> None:
    """Show everything that the store records about a version.

    Parameters, metrics, schema, libraries, files.

    Example:

      mlapp models show production
    """
    from mlapp.project import Project

    project = Project.find()
    manifest = project.store.manifest(project.name, project.store.resolve(project.name, version))
    if json:
        output.print_json(manifest)
        return
    git = f"{manifest.git.commit[:12]}{' (with changes)' if manifest.git.dirty else ''}" if manifest.git else "none"
    output.print_table(
        [manifest.app, f"version {manifest.version}"],
        [
            ["created", f"{manifest.created:%Y-%m-%d %H:%M:%S} UTC, in {manifest.duration:.1f} s"],
            ["model", f"{manifest.model} ({manifest.framework}, {manifest.model_format})"],
            ["git", git],
            ["data", f"{manifest.data.rows} rows, {manifest.data.columns} columns, {manifest.data.fingerprint[:12]}"],
            *([["goes on from", f"version {manifest.parent}"]] if manifest.parent is not None else []),
            *([["tuning", _describe_trial(manifest.tuning)]] if manifest.tuning else []),
            *([f"parameter {name}", value] for name, value in manifest.parameters.items()),
            *(
                [f"{name} ({split})", value]
                for split, found in manifest.metrics.items()
                for name, value in found.items()
            ),
            *(
                [f"library {name}", number]
                for name, number in {"python": manifest.python, **manifest.libraries}.items()
            ),
            *(
                [f"file {name}", f"{file.size} bytes, sha256 {file.sha256[:12]}"]
                for name, file in manifest.files.items()
            ),
        ],
    )


def _describe_trial(tuning: Mapping[str, Any]) -> str:
    """Which trial of the search it is; the trials themselves are what `--json` shows."""
    trials = {trial["number"]: trial for trial in tuning["trials"]}
    best = trials[tuning["best"]]
    return f"trial {tuning['best']} of {len(trials)}, {tuning['metric']} {best['value']:.4g} by cross-validation"


@cli.command("compare")
def compare_versions(
    versions: Annotated[list[str], typer.Argument(help="Two or more versions or aliases.")],
    on: Annotated[
        str | None, typer.Option("--on", metavar="live:TIME", help="Compare them on logged features, as live:7d.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table, for the comment of a pull request.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare versions: parameters and metrics side by side.

    With --on live:7d, the features that were logged in the last seven days go through each version; it is evaluated
    where the truth is known.

    Examples:

      mlapp models compare 3 7

      mlapp models compare 7 8 --on live:7d
    """
    from mlapp.project import Project
    from mlapp.store.version_query import compare_side_by_side

    if len(versions) < 2:
        raise UsageError("There is one version to compare.", "Give two or more: mlapp models compare 3 7.")
    project = Project.find()
    numbers = [project.store.resolve(project.name, version) for version in versions]
    if on is not None:
        _compare_live(project, numbers, on, json=json)
        return
    rows = compare_side_by_side([project.store.manifest(project.name, number) for number in numbers])
    if json:
        output.print_json(
            [{"what": name, **dict(zip(map(str, numbers), values, strict=True))} for name, values in rows]
        )
        return
    print_rows = output.print_markdown if markdown else output.print_table
    print_rows(
        ["", *(f"version {number}" for number in numbers), ""],
        [[name, *values, "differs" if any(value != values[0] for value in values) else ""] for name, values in rows],
    )


def _compare_live(project: Project, numbers: list[int], on: str, *, json: bool) -> None:
    import time

    from mlapp.monitoring.comparison import compare_live
    from mlapp.monitoring.inspection import parse_time

    kind, _, text = on.partition(":")
    if kind != "live" or not text:
        raise UsageError(f"--on {on} is not known.", "Give it as live:7d.")
    since = parse_time(text)
    assert since is not None
    found = compare_live(project, numbers, since=since, until=time.time())
    if json:
        output.print_json(found)
        return
    names = list(dict.fromkeys(name for side in found.sides for name in side.metrics))
    output.print_table(
        ["", *(f"version {side.version}" for side in found.sides)],
        [["rows", *(side.rows for side in found.sides)], ["truths", *(side.truths for side in found.sides)]]
        + [[name, *(side.metrics.get(name) for side in found.sides)] for name in names],
    )
    typer.echo(f"The same prediction for {found.agreement:.1%} of {found.rows} rows.")


@cli.command("promote")
def promote_version(
    version: Version, alias: Annotated[str, typer.Argument(help="The alias to move.")] = "production"
) -> None:
    """Point an alias at a version. A server that serves the alias switches to it.

    Example:

      mlapp models promote 7 production
    """
    from mlapp.project import Project

    project = Project.find()
    number = project.store.promote(project.name, version, alias)
    output.print_note(f"{alias} is now version {number} of {project.name}.")


@cli.command("pull")
def pull_version(
    version: Version,
    to: Annotated[str | None, typer.Option(help="Copy it to this store: a folder, or s3://bucket/prefix.")] = None,
) -> None:
    """Fetch a version from the project's store.

    Its files, or a copy in another store.

    Prints the folder of the files, each checked against its SHA-256; with --to, the number that it has there.

    Examples:

      mlapp models pull production

      mlapp models pull 7 --to ./models
    """
    from mlapp.project import Project

    project = Project.find()
    if to is None:
        with output.show_progress() as tell:
            output.print_result(str(project.store.get(project.name, version, progress=tell).files))
        return
    _copy_version(project.name, project.store, version, project.open_store(to))


@cli.command("push")
def push_version(
    version: Version,
    to: Annotated[
        str | None, typer.Option(help="A store: a folder, or s3://bucket/prefix; `store:` if absent.")
    ] = None,
) -> None:
    """Copy a version to another store.

    From the project's store to --to, or from the local folder to `store:`.

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
    _copy_version(project.name, source, version, project.store if to is None else project.open_store(to))


def _copy_version(app: str, source: Store, version: str, target: Store) -> None:
    if repr(source.storage) == repr(target.storage):
        raise UsageError(
            f"The version is in {source.storage!r} already.", "Give another store: --to s3://bucket/prefix."
        )
    manifest = source.manifest(app, source.resolve(app, version))
    number = target.find_number(manifest)
    if number is None:
        with output.show_progress() as tell:
            number = target.adopt_version(source.get(app, manifest.version, progress=tell), progress=tell).version
        output.print_note(f"Version {manifest.version} of {app} is version {number} in {target.storage!r}.")
    else:
        output.print_note(f"Version {manifest.version} of {app} is in {target.storage!r} already, as version {number}.")
    output.print_result(str(number))


@cli.command("sign")
def sign_version(
    version: Version = "latest",
    private_key: Annotated[str | None, typer.Option(help="PEM file of the key; store.private_key if absent.")] = None,
    signing_certificate: Annotated[str | None, typer.Option(help="PEM file of the key's certificate.")] = None,
    certificate_chain: Annotated[
        list[str] | None, typer.Option(help="PEM file of an authority above the certificate; several may be given.")
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign with the identity of this CI job or of a login (Sigstore).")
    ] = False,
    json: Json = False,
) -> None:
    """Sign a version, in the format of OpenSSF Model Signing.

    Prints its number. A version may have several signatures, and keeps them when it is copied.

    Examples:

      mlapp models sign 7 --private-key ~/keys/models.pem

      mlapp models sign production --keyless
    """
    from mlapp.project import Project

    project = Project.find()
    given = {
        "private_key": _resolve_here(private_key),
        "signing_certificate": _resolve_here(signing_certificate),
        "certificate_chain": [_resolve_here(name) for name in certificate_chain or []],
    }
    store = _open_store_with_keys(project, given)
    number = store.sign_version(project.name, version, keyless=keyless)
    if json:
        output.print_json({"app": project.name, "version": number})
        return
    output.print_note(f"Version {number} of {project.name} is signed.")
    output.print_result(str(number))


@cli.command("verify")
def verify_version(
    version: Version = "latest",
    public_key: Annotated[str | None, typer.Option(help="PEM file of the key; store.public_key if absent.")] = None,
    certificate_chain: Annotated[
        list[str] | None, typer.Option(help="PEM file of an authority whose certificates count.")
    ] = None,
    identity: Annotated[str | None, typer.Option(help="Whose keyless signature counts.")] = None,
    identity_provider: Annotated[str | None, typer.Option(help="The provider that vouches for the identity.")] = None,
    json: Json = False,
) -> None:
    """Check a version's files and that it has a valid signature. Exits with 1 if it has none.

    Examples:

      mlapp models verify production

      mlapp models verify 7 --public-key models.pub
    """
    from mlapp.project import Project

    project = Project.find()
    given = {
        "public_key": _resolve_here(public_key),
        "certificate_chain": [_resolve_here(name) for name in certificate_chain or []],
        "identity": identity,
        "identity_provider": identity_provider,
    }
    number = _open_store_with_keys(project, given).verify_version(project.name, version)
    if json:
        output.print_json({"app": project.name, "version": number, "verified": True})
        return
    output.print_note(f"Version {number} of {project.name} has a valid signature.")
    output.print_result(str(number))


def _resolve_here(name: str | None) -> str | None:
    """A path of the command line is relative to the folder that the command runs in, not to the project's."""
    return None if name is None else str(Path(name).expanduser().absolute())


def _open_store_with_keys(project: Project, given: Mapping[str, Any]) -> Store:
    """The project's store; keys given as flags replace those of the settings."""
    import msgspec

    chosen = {name: value for name, value in given.items() if value}
    return project.open_store(msgspec.structs.replace(project.settings.store, **chosen))


@cli.command("delete")
def delete_version(version: Version, yes: Yes = False) -> None:
    """Delete a version and its files; its number is never given again.

    Example:

      mlapp models delete 3
    """
    from mlapp.project import Project

    project = Project.find()
    number = project.store.resolve(project.name, version)
    output.ask_confirmation(f"Delete version {number} of {project.name} for good?", yes=yes)
    project.store.delete(project.name, number)
    output.print_note(f"Version {number} of {project.name} is deleted.")


@cli.command("prune")
def prune_versions(
    keep: Annotated[int, typer.Option(min=1, help="The newest versions that stay.")],
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which versions would go.")] = False,
    json: Json = False,
) -> None:
    """Delete old versions, but none that an alias points at.

    Examples:

      mlapp models prune --keep 10 --dry-run

      mlapp models prune --keep 10 --yes
    """
    from mlapp.project import Project

    project = Project.find()
    going = project.store.list_expendable(project.name, keep)
    listed = ", ".join(str(version.version) for version in going)
    if going and not dry_run:
        output.ask_confirmation(f"Delete for good of {project.name}: {listed}?", yes=yes)
    gone = going if dry_run else [version for version in going if _try_delete(project.store, version)]
    size = sum(file.size for version in gone for file in version.files.values())
    if json:
        output.print_json({"versions": [version.version for version in gone], "bytes": size, "deleted": not dry_run})
        return
    if not going:
        output.print_note(
            f"Nothing goes: {project.name} has no version beside the newest {keep} and those with an alias."
        )
    elif dry_run:
        output.print_note(f"Versions to go: {len(gone)}, with {size / 1e6:.1f} MB: {listed}.")
    else:
        output.print_note(f"Versions deleted: {len(gone)}, with {size / 1e6:.1f} MB.")


def _try_delete(store: Store, version: Manifest) -> bool:
    """Delete a version; false if an alias points at it now, or if it does not exist."""
    try:
        store.delete(version.app, version.version)
    except UsageError as error:  # an alias was moved to it in the meantime, or another process deleted it
        output.print_note(f"{error.what} It is left as it is.")
        return False
    return True


def _summarize_version(version: Any) -> dict[str, Any]:
    return {
        "version": version.version,
        "created": version.created,
        "model": version.model,
        "metrics": version.metrics,
        "parameters": version.parameters,
    }
