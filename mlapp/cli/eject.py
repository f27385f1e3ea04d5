"""`mlapp eject`: write what mlapp generates"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_flags import TargetCommand
from mlapp.cli.target_options import Namespace, TargetName, open_command_target
from mlapp.errors import UsageError


class EjectGroup(TyperGroup):
    """Adds `mlapp eject TARGET` for each installed target that generates files, unless a command below covers it."""

    def list_commands(self, ctx: Any) -> list[str]:
        from mlapp import plugins

        own = super().list_commands(ctx)
        others = [name for name, target in plugins.load_plugins(plugins.TARGETS) if hasattr(target, "eject_formats")]
        return [*own, *sorted(name for name in others if name not in (*own, "docker"))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from mlapp.deploy.target import target_names

        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in target_names():
            return _make_eject_command(cmd_name)
        return command


cli = typer.Typer(cls=EjectGroup, help="Write the files that mlapp generates, to edit and keep.", no_args_is_help=True)

PLACEHOLDER = "registry.invalid/image@sha256:" + "0" * 64
"""Placeholder for an image that is not needed."""


@cli.command("k8s")
def eject_kubernetes(
    format: Annotated[str, typer.Option(help="yaml, kustomize or helm.")] = "yaml",
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("deploy"),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[
        str | None, typer.Option(help="The image, repository@sha256:…. Built and pushed when absent.")
    ] = None,
    namespace: Namespace = None,
    environment: Environment = None,
) -> None:
    """Write the Kubernetes objects.

    As plain YAML, a kustomization, or a Helm chart.

    Examples:

      mlapp eject k8s --to deploy && kubectl apply -f deploy

      mlapp eject k8s --format helm --to chart && helm install digits chart
    """
    _eject_target("k8s", format, to, model, image, environment, namespace)


@cli.command("rbac")
def eject_rbac(target: TargetName = None, namespace: Namespace = None, environment: Environment = None) -> None:
    """Print the smallest Role with which this app can be deployed.

    Includes a ServiceAccount with this Role.
    The default target is k8s, or the only cluster target in mlapp.yaml.

    Examples:

      mlapp eject rbac --namespace team-a | kubectl apply -f -

      mlapp eject rbac --target kserve --namespace team-a | kubectl apply -f -
    """
    from mlapp.deploy import Shipment
    from mlapp.deploy.cluster.cluster_target import ClusterTarget
    from mlapp.deploy.target import find_target_class
    from mlapp.deploy.yaml_dump import dump_yaml_documents
    from mlapp.project import Project

    project = Project.find(environment=environment)
    configured = [name for name in project.settings.targets if issubclass(find_target_class(name), ClusterTarget)]
    name = target or (configured[0] if len(configured) == 1 else "k8s")
    place = open_command_target(project, name, namespace)
    if not isinstance(place, ClusterTarget):
        raise UsageError(f"The target {place.name} is not in a cluster.", "Name one that is: --target k8s.")
    shipment = Shipment(project.name, PLACEHOLDER, "1", model_uri="s3://placeholder")
    typer.echo(dump_yaml_documents(place.rbac(shipment)), nl=False)


@cli.command("iam")
def eject_iam(
    target: Annotated[
        str | None, typer.Option(help="lambda or sagemaker. By default the one in mlapp.yaml, otherwise lambda.")
    ] = None,
    environment: Environment = None,
) -> None:
    """Print the smallest role that the app needs on AWS.

    Prints a CloudFormation template, which also has the policy for the identity that deploys.

    Example:

      mlapp eject iam > iam.yaml
      aws cloudformation deploy --stack-name digits-iam --template-file iam.yaml --capabilities CAPABILITY_NAMED_IAM
    """
    from mlapp.deploy.abilities import IamTarget
    from mlapp.deploy.yaml_dump import dump_yaml_documents
    from mlapp.project import Project

    project = Project.find(environment=environment)
    configured = [name for name in ("lambda", "sagemaker") if name in project.settings.targets]
    place = open_command_target(project, target or (configured[0] if configured else "lambda"))
    if not isinstance(place, IamTarget):
        raise UsageError(f"The target {place.name} is not on AWS.", "Name one that is: --target sagemaker.")
    typer.echo(dump_yaml_documents([place.iam()]), nl=False)


@cli.command("schema")
def eject_schema() -> None:
    """Print a JSON Schema of mlapp.yaml.

    Editors use it for completion and checks.

    Example:

      mlapp eject schema > mlapp.schema.json
      # then, as the first line of mlapp.yaml:  # yaml-language-server: $schema=mlapp.schema.json
    """
    from mlapp.deploy.settings_schema import make_settings_schema as of_settings

    output.print_json(of_settings())


@cli.command("dockerfile")
def eject_dockerfile(
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    platform: Annotated[list[str] | None, typer.Option(help="linux/amd64 or linux/arm64. [the engine's]")] = None,
    environment: Environment = None,
) -> None:
    """Write the Dockerfile into the project.

    Also writes the files that the Dockerfile copies. `mlapp build` uses this Dockerfile afterwards.

    Example:

      mlapp eject dockerfile && docker build --tag digits .
    """
    from mlapp.images.eject import eject_dockerfile
    from mlapp.images.project_image import bundle_project
    from mlapp.project import Project

    def print_warning(text: str) -> None:
        output.print_note(f"Warning: {text}")

    project = Project.find(environment=environment)
    made = bundle_project(project, model=model, settings_of=environment, warn=print_warning)
    with output.show_progress() as tell:
        written = eject_dockerfile(made, project.root, platform=platform, progress=tell, warn=print_warning)
    for path in written:
        typer.echo(path)


@cli.command("compose")
def eject_compose(
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[str | None, typer.Option(help="The image; one is built when absent.")] = None,
    environment: Environment = None,
) -> None:
    """Write a compose file equivalent to the docker target.

    Example:

      mlapp eject compose && docker compose up
    """
    _eject_target("docker", "compose", to, model, image, environment)


def _make_eject_command(name: str) -> Any:
    """The command `mlapp eject NAME` for a target without its own command."""

    def eject_target(
        format: Annotated[
            str | None, typer.Option(help="Format of the files. By default the target's first one.")
        ] = None,
        to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("deploy"),
        model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
        image: Annotated[str | None, typer.Option(help="The image; one is built when absent.")] = None,
        environment: Environment = None,
    ) -> None:
        _eject_target(name, format, to, model, image, environment)

    eject_target.__doc__ = f"Write the files of the target {name}."
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=type("EjectCommand", (TargetCommand,), {"target": name}))(eject_target)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _eject_target(
    name: str,
    format: str | None,
    to: Path,
    model: str,
    image: str | None,
    environment: str | None,
    namespace: str | None = None,
) -> None:
    """Write the files of a target, and print their paths.

    Raises:
        UsageError: the target generates no files, or does not support the format.
    """
    from mlapp.deploy import EjectTarget
    from mlapp.deploy.shipping import make_shipment
    from mlapp.project import Project

    project = Project.find(environment=environment)
    place = open_command_target(project, name, namespace)
    if not isinstance(place, EjectTarget):
        raise UsageError(f"The target {name} has no files to write.", "Use mlapp deploy --dry-run.")
    format = format or place.eject_formats[0]
    if format not in place.eject_formats:  # fail before building an image
        raise UsageError(f"There is no format '{format}'.", f"Formats: {', '.join(place.eject_formats)}.")
    shipment = make_shipment(
        project, place, model=model, image=image, settings_of=environment, progress=output.print_note
    )
    for path in place.eject(shipment, to, format):
        typer.echo(path)


@cli.command("rules")
def eject_rules(
    operator: Annotated[
        bool, typer.Option("--operator", help="Print a PrometheusRule of the Prometheus operator.")
    ] = False,
    environment: Environment = None,
) -> None:
    """Print recording and alerting rules for Prometheus.

    The rules cover drift and missing, unusual and refused values across all pods of the app.

    Examples:

      mlapp eject rules > rules.yml && promtool check rules rules.yml

      mlapp eject rules --operator | kubectl apply -f -
    """
    import yaml

    from mlapp.monitoring.rules_file import make_prometheus_rule, make_rules
    from mlapp.project import Project

    project = Project.find(environment=environment)
    made = make_rules(project.name, project.settings.monitor)
    found = make_prometheus_rule(project.name, made) if operator else made
    typer.echo(yaml.safe_dump(found, sort_keys=False, width=120), nl=False)


@cli.command("grafana")
def eject_grafana(environment: Environment = None) -> None:
    """Print a Grafana dashboard.

    It shows the metrics recorded by `mlapp eject rules`, requests and latency.

    Example:

      mlapp eject grafana > dashboard.json
    """
    from mlapp.monitoring.rules_file import make_dashboard
    from mlapp.project import Project

    output.print_json(make_dashboard(Project.find(environment=environment).name))


@cli.command("ci")
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
        typer.echo(path)


@cli.command("gitops")
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
    """Write the objects with which Argo CD or Flux applies the folder of `mlapp deploy --to-git`.

    Includes an AnalysisTemplate for Argo Rollouts, with the limits of a canary and the alerting rules of monitoring.

    Examples:

      mlapp eject gitops --format argocd --env production --repo https://git.example.org/team/deployments.git

      mlapp eject gitops --format flux --rollouts --to clusters/production
    """
    from mlapp.deploy.gitops_files import write_gitops_files
    from mlapp.project import Project

    project = Project.find(environment=environment)
    place = open_command_target(project, target or "k8s", namespace)
    written = write_gitops_files(
        project,
        place,
        to,
        format=format,
        repository=repo,
        path=git_path,
        branch=git_branch,
        with_rollout=rollouts,
        prometheus=prometheus,
        progress=output.print_note,
    )
    for file in written:
        typer.echo(file)
