"""`mlapp eject ci` and `mlapp eject gitops`: files that deploy the app on a push or a commit"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Namespace, TargetName, open_target_from_options


def eject_ci(
    format: Annotated[str, typer.Option(help="github or gitlab.")] = "github",
    to: Annotated[Path | None, typer.Option(help="Root of the repository. [the project's repository]")] = None,
) -> None:
    """Write CI pipelines that take a push to production.

    For a pull request: test, train on a small sample and compare with production. For the main branch: train, sign,
    build, push and deploy to staging, then to production with a canary. Every night: check the live model.

    Examples:

      mlapp eject ci --format github

      mlapp eject ci --format gitlab
    """
    from mlapp.ci import write_pipeline_files
    from mlapp.project import Project

    for path in write_pipeline_files(Project.find(), format, to):
        output.print_result(str(path))


def eject_gitops(
    format: Annotated[str, typer.Option(help="argocd or flux.")] = "argocd",
    repo: Annotated[
        str | None, typer.Option(help="URL of the repository that `deploy --to-git` writes to. [the project's origin]")
    ] = None,
    git_path: Annotated[str | None, typer.Option(help="Folder in the repository. [NAME/ENV, or NAME]")] = None,
    git_branch: Annotated[str, typer.Option(help="Branch of the repository.")] = "main",
    rollouts: Annotated[
        bool, typer.Option("--rollouts", help="Add a Rollout of Argo Rollouts for canaries with the analysis.")
    ] = False,
    prometheus: Annotated[
        str, typer.Option(help="URL of Prometheus for the analysis.")
    ] = "http://prometheus.monitoring:9090",
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("gitops"),
    target: TargetName = None,
    namespace: Namespace = None,
    environment: Environment = None,
) -> None:
    """Write the objects for Argo CD or Flux.

    They apply the folder that `mlapp deploy --to-git` writes.

    Includes an AnalysisTemplate for Argo Rollouts, with the limits of a canary and the alerting rules of monitoring.

    Examples:

      mlapp eject gitops --format argocd --env production --repo https://git.example.org/team/deployments.git

      mlapp eject gitops --format flux --rollouts --to clusters/production
    """
    from mlapp.deploy.gitops import GitopsOptions, write_gitops_files
    from mlapp.project import Project
    from mlapp.project_outputs import record_project_outputs

    project = Project.find(environment=environment)
    deploy_target = open_target_from_options(project, target or "k8s", namespace)
    options = GitopsOptions(format, repo, git_path, git_branch, rollouts, prometheus)
    written = write_gitops_files(project, deploy_target, to, options, output.print_note)
    record_project_outputs(project.root, written)
    for file in written:
        output.print_result(str(file))
