"""`mlapp models`: the model store"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import model_evaluation, model_removal, model_signatures, model_transfer, output
from mlapp.cli.options import Json, Version
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlapp.errors import StoreError
    from mlapp.project import Project
    from mlapp.store import Manifest

MAX_NEWEST = 50
"""Maximum number of listed versions, so that the duration does not grow with the store."""


def list_versions(
    sort: Annotated[
        str | None, typer.Option(help="Sort by a metric, best last. A leading `-` reverses the order.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only versions with this metric, such as accuracy>=0.9. Repeat it to combine conditions."),
    ] = None,
    all_versions: Annotated[
        bool, typer.Option("--all", help=f"List all versions, not only the newest {MAX_NEWEST}.")
    ] = False,
    json: Json = False,
) -> None:
    """List the newest 50 versions, newest last.

    --all, --sort, --where and --json use all versions.

    Examples:

      mlapp models list

      mlapp models list --sort accuracy --where 'accuracy>=0.9'
    """
    from mlapp.project import Project
    from mlapp.store.version_query import select_versions

    project = Project.find()
    damaged: list[StoreError] = []
    newest = None if all_versions or sort or where or json else MAX_NEWEST
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
                {**_summarize_model_version(version), "aliases": sorted(aliases.get(version.version, []))}
                for version in versions
            ]
        )
        return
    if not versions and not where:
        output.print_note(f"{project.name} has no version. Train one: mlapp train")
        return
    _print_version_table(versions, aliases)
    if not versions:
        output.print_note(f"No version of {project.name} meets every condition of --where.")
    if len(manifests) == newest:
        output.print_note(f"Showing the newest {newest}. List all: mlapp models list --all")


def _print_version_table(versions: Sequence[Manifest], aliases: Mapping[int, list[str]]) -> None:
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


def show_version(version: Version = "latest", json: Json = False) -> None:
    """Show everything that the store records about a version.

    Includes parameters, metrics, schema, libraries and files.

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
            *([["continues", f"version {manifest.parent}"]] if manifest.parent is not None else []),
            *([["tuning", _describe_model_trial(manifest.tuning)]] if manifest.tuning else []),
            *([f"parameter {name}", "none" if value is None else value] for name, value in manifest.parameters.items()),
            *(
                [f"{name} ({split})", value]
                for split, scores in manifest.metrics.items()
                for name, value in scores.items()
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


def _describe_model_trial(tuning: Mapping[str, Any]) -> str:
    """A description of the version's trial in its search; `--json` shows all trials."""
    trials = {trial["number"]: trial for trial in tuning["trials"]}
    best = trials[tuning["best"]]
    return f"trial {tuning['best']} of {len(trials)}, {tuning['metric']} {best['value']:.4g} by cross-validation"


def compare_versions(
    versions: Annotated[list[str], typer.Argument(help="Two or more versions or aliases.")],
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="live:TIME", help="Compare on the features logged in a period, such as live:7d."),
    ] = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print a Markdown table, also of one version, for a pull request."),
    ] = False,
    json: Json = False,
) -> None:
    """Compare the parameters and metrics of versions.

    With --on live:7d, each version predicts on the features logged in the last seven days, and is evaluated on rows
    with a known true value.

    Examples:

      mlapp models compare 3 7

      mlapp models compare 7 8 --on live:7d
    """
    from mlapp.project import Project
    from mlapp.store.version_query import compare_versions_side_by_side

    if len(versions) < 2 and not markdown:
        raise UsageError("mlapp models compare needs two or more versions.", "Name them: mlapp models compare 3 7.")
    project = Project.find()
    numbers = [project.store.resolve(project.name, version) for version in versions]
    if on is not None:
        _compare_live_model(project, numbers, on, json=json)
        return
    rows = compare_versions_side_by_side([project.store.manifest(project.name, number) for number in numbers])
    if json:
        output.print_json(
            [{"what": name, **dict(zip(map(str, numbers), values, strict=True))} for name, values in rows]
        )
        return
    print_rows = output.print_markdown if markdown else output.print_table
    columns = ["", *(f"version {number}" for number in numbers)]
    if len(numbers) == 1:
        print_rows(columns, [[name, *values] for name, values in rows])
        return
    print_rows(
        [*columns, ""],
        [[name, *values, "differs" if any(value != values[0] for value in values) else ""] for name, values in rows],
    )


def _compare_live_model(project: Project, numbers: list[int], on: str, *, json: bool) -> None:
    import time

    from mlapp.monitoring.comparison import compare_versions_live
    from mlapp.monitoring.inspection import parse_inspected_moment

    kind, _, text = on.partition(":")
    if kind != "live" or not text:
        raise UsageError(f"--on {on} is not a period.", "Give it as live:7d.")
    since = parse_inspected_moment(text)
    assert since is not None
    comparison = compare_versions_live(project, numbers, since=since, until=time.time())
    if json:
        output.print_json(comparison)
        return
    names = list(dict.fromkeys(name for side in comparison.sides for name in side.metrics))
    output.print_table(
        ["", *(f"version {side.version}" for side in comparison.sides)],
        [["rows", *(side.rows for side in comparison.sides)], ["truths", *(side.truths for side in comparison.sides)]]
        + [[name, *(side.metrics.get(name) for side in comparison.sides)] for name in names],
    )
    output.print_result(f"The predictions agree for {comparison.agreement:.1%} of {comparison.rows} rows.")


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


def _summarize_model_version(version: Any) -> dict[str, Any]:
    return {
        "version": version.version,
        "created": version.created,
        "model": version.model,
        "metrics": version.metrics,
        "parameters": version.parameters,
    }


cli = typer.Typer(help="The model store: versions, and the aliases that name them.", no_args_is_help=True)
cli.command("list")(list_versions)
cli.command("show")(show_version)
cli.command("compare")(compare_versions)
cli.command("evaluate")(model_evaluation.evaluate_version)
cli.command("promote")(promote_version)
cli.command("pull")(model_transfer.pull_version)
cli.command("push")(model_transfer.push_version)
cli.command("sign")(model_signatures.sign_version)
cli.command("verify")(model_signatures.verify_version)
cli.command("delete")(model_removal.delete_version)
cli.command("prune")(model_removal.prune_versions)
