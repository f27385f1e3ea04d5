"""`mlapp deploy`"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.advised_commands import format_place_flags
from mlapp.cli.options import Environment, Json
from mlapp.cli.target_options import (
    Context,
    Namespace,
    TargetName,
    open_target_from_options,
    refuse_unsupported_options,
)
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.deploy import CanaryTarget, Release, Shipment, Target
    from mlapp.project import Project

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def deploy_app(
    target: TargetName = None,
    model: Annotated[str | None, typer.Option(help="A version, an alias or `latest`.", show_default="latest")] = None,
    image: Annotated[
        str | None, typer.Option(help="Deploy this image, repository@sha256:…, instead of building one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the objects as YAML without applying them.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print the changes without applying them. Exits with 1 if there are any.")
    ] = False,
    canary: Annotated[
        int | None, typer.Option(min=1, max=99, help="Deploy a canary with this percentage of the traffic.")
    ] = None,
    auto_promote: Annotated[
        str | None,
        typer.Option(help="With --canary: watch the canary for a period, such as 10m, then promote or abort it."),
    ] = None,
    force_conflicts: Annotated[
        bool,
        typer.Option("--force-conflicts", help="Overwrite fields and objects that other tools changed or created."),
    ] = False,
    to_git: Annotated[
        str | None,
        typer.Option("--to-git", metavar="REPO", help="Commit the objects to this Git repository instead of applying."),
    ] = None,
    git_path: Annotated[
        str | None, typer.Option(help="With --to-git: the folder in the repository. [NAME/ENV, or NAME]")
    ] = None,
    git_branch: Annotated[
        str | None, typer.Option(help="With --to-git: the branch. [the repository's default branch]")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Deploy the app and wait until it answers.

    Builds and pushes the image if needed, shows the changes and applies them.
    If the release does not start, prints the reason and keeps the previous release live.

    Examples:

      mlapp deploy --target k8s

      mlapp deploy --target k8s --env staging --diff

      mlapp deploy --target k8s --dry-run | kubectl apply --dry-run=server -f -

      mlapp deploy --target k8s --canary 10 --dry-run

      mlapp deploy --target k8s --canary 10 --auto-promote 10m

      mlapp deploy --target k8s --env production --to-git git@git.example.org:team/deployments.git
    """
    from mlapp.deploy import CanaryRenderTarget, CanaryTarget, CheckTarget, DiffTarget
    from mlapp.deploy.cluster.cluster_target import ClusterTarget
    from mlapp.deploy.git_release import choose_release_folder
    from mlapp.deploy.shipping import make_shipment
    from mlapp.monitoring.run_schedule import keeps_monitoring_in_pods
    from mlapp.project import Project

    _refuse_contradictory_deploy_options(dry_run, diff, canary, to_git, with_git=bool(git_path or git_branch))
    _refuse_deploy_options_without_apply(dry_run, to_git, force_conflicts, auto_promote)
    seconds = _parse_promotion_time(auto_promote) if auto_promote else None
    if seconds and canary is None:
        raise UsageError("--auto-promote is given without --canary.", "Give both: --canary 10 --auto-promote 10m.")
    project = Project.find(environment=environment)
    deploy_target = open_target_from_options(project, target, namespace, context)
    place = {"--target": deploy_target.name, "--namespace": namespace, "--context": context, "--env": environment}
    limited_options = {"--force-conflicts": force_conflicts, "--image": image is not None, "--model": model is not None}
    refuse_unsupported_options(
        type(deploy_target), [option for option, is_given in limited_options.items() if is_given]
    )
    _refuse_unsupported_deploy_options(deploy_target, dry_run, diff, canary, to_git)
    if not dry_run and to_git is None and isinstance(deploy_target, CheckTarget):
        deploy_target.check()  # fail before building an image
    shipment = make_shipment(
        project,
        deploy_target,
        model=model or "latest",
        image=image,
        environment=environment,
        progress=output.print_note,
    )
    if dry_run and canary is not None and isinstance(deploy_target, CanaryRenderTarget):
        _print_deployed_documents(deploy_target.render_canary(shipment, canary))
        return
    if dry_run:
        _print_deployed_documents(deploy_target.render(shipment))
        return
    if diff and isinstance(deploy_target, DiffTarget):
        text = deploy_target.diff(shipment, take_over=force_conflicts)
        output.print_text(text)
        raise typer.Exit(1 if text else 0)
    if to_git is not None:
        _commit_deployed_release(
            deploy_target,
            shipment,
            to_git,
            git_path or choose_release_folder(project.name, environment),
            git_branch,
            json,
        )
    elif canary is not None and isinstance(deploy_target, CanaryTarget):
        release = deploy_target.canary(shipment, canary, progress=output.print_note, take_over=force_conflicts)
        if seconds:
            release = _judge_deployed_canary(project, deploy_target, seconds)
        _print_deployed_release(deploy_target, release, format_place_flags(place), json)
    else:
        release = deploy_target.apply(shipment, progress=output.print_note, take_over=force_conflicts)
        _print_deployed_release(deploy_target, release, format_place_flags(place), json)
    if isinstance(deploy_target, ClusterTarget) and keeps_monitoring_in_pods(project.settings):
        output.print_note(
            "Monitoring data stays in each pod and is lost with it: set `monitor.url` in mlapp.yaml to a bucket (s3://…)."
        )


def _judge_deployed_canary(project: Project, target: CanaryTarget, seconds: float) -> Release:
    """Watch the canary for a period, then promote or abort it."""
    from mlapp.monitoring.canary_quality import CanaryQuality

    quality = CanaryQuality(project, time.time())
    return target.judge(seconds, progress=output.print_note, compare_quality=quality)


def _refuse_contradictory_deploy_options(
    dry_run: bool, diff: bool, canary: int | None, to_git: str | None, *, with_git: bool
) -> None:
    if dry_run and diff:
        raise UsageError("--dry-run and --diff are both given.", "Give one of them.")
    if canary is not None and diff:
        raise UsageError("--diff is given with --canary.", "Leave --canary out, or use --dry-run.")
    if to_git is None and with_git:
        raise UsageError("--git-path or --git-branch is given without --to-git.", "Give --to-git too.")
    if to_git is not None and (canary is not None or diff):
        other = "--diff" if diff else "--canary"
        raise UsageError(
            f"{other} is given with --to-git.",
            "Git holds one release: review the diff there, and use Argo Rollouts for canaries (mlapp eject gitops).",
        )


def _refuse_deploy_options_without_apply(
    dry_run: bool, to_git: str | None, force_conflicts: bool, auto_promote: str | None
) -> None:
    if not dry_run and to_git is None:
        return
    mode = "--dry-run" if dry_run else "--to-git"
    for option, is_given in (("--force-conflicts", force_conflicts), ("--auto-promote", auto_promote is not None)):
        if is_given:
            raise UsageError(f"{option} is given with {mode}, which applies nothing.", f"Leave {option} out.")


def _refuse_unsupported_deploy_options(
    target: Target[Any], dry_run: bool, diff: bool, canary: int | None, to_git: str | None
) -> None:
    from mlapp.deploy import CanaryRenderTarget, CanaryTarget, DiffTarget

    if canary is not None and not isinstance(target, CanaryTarget):
        raise UsageError(f"The target {target.name} does not support canaries.", "Leave --canary out.")
    if canary is not None and dry_run and not isinstance(target, CanaryRenderTarget):
        raise UsageError(f"The target {target.name} cannot preview a canary.", "Leave --dry-run out.")
    if diff and not isinstance(target, DiffTarget):
        raise UsageError(f"The target {target.name} does not support --diff.", "Use --dry-run.")
    if to_git is not None:
        from mlapp.deploy.cluster.cluster_target import ClusterTarget

        if not isinstance(target, ClusterTarget):
            raise UsageError(f"The target {target.name} has no Kubernetes objects.", "Leave out --to-git.")


def _print_deployed_release(target: Target[Any], release: Release, flags: str, json: bool) -> None:
    """Print the release, and the next commands with the flags of its place."""
    from mlapp.deploy import PredictTarget

    if json:
        output.print_json(release)
    elif release.state == "canary":
        output.print_note(f"Release {release.number} is a canary. Next: mlapp promote{flags}, or mlapp abort{flags}")
    else:
        output.print_note(f"Release {release.number} is live{':' if release.url else '.'}")
        if release.url:
            output.print_result(release.url)
        predict_hint = f", or mlapp predict{flags} --features FILE" if isinstance(target, PredictTarget) else ""
        output.print_note(f"Next: mlapp status{flags}{predict_hint}")


def _commit_deployed_release(
    target: Target[Any], shipment: Shipment, repository: str, path: str, branch: str | None, json: bool
) -> None:
    from mlapp.deploy.git_release import commit_release

    documents = target.render(shipment)
    commit = commit_release(documents, shipment, repository, path, branch=branch, progress=output.print_note)
    if json:
        output.print_json(commit)
        return
    if not commit.changed:
        output.print_note(f"{path} in {repository} already contains this release: nothing to commit.")
    else:
        end = "." if commit.pushed else f"; push it: git -C {repository} push"
        output.print_note(f"The release is in {path} of {repository}, branch {commit.branch}{end}")
    output.print_result(commit.commit)


def _parse_promotion_time(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise UsageError(f"--auto-promote {text} is not a period of time.", "Give it as 90s, 10m or 1h.")
    return float(match[1]) * UNIT_SECONDS[match[2]]


def _print_deployed_documents(documents: list[dict[str, Any]]) -> None:
    from mlapp.deploy.yaml_dump import dump_yaml_documents

    output.print_text(dump_yaml_documents(documents))
