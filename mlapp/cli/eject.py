"""`mlapp eject`: write the files that mlapp generates, to edit and keep"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlapp.cli import eject_monitoring, eject_permissions, eject_pipelines, output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Namespace, TargetCommand, open_target_from_options
from mlapp.errors import UsageError


class EjectGroup(TyperGroup):
    """Adds `mlapp eject TARGET` for each installed target that generates files, unless a command below covers it."""

    def list_commands(self, ctx: Any) -> list[str]:
        from mlapp import plugins

        own_names = super().list_commands(ctx)
        eject_targets = [
            name for name, target in plugins.load_plugins(plugins.TARGETS) if hasattr(target, "eject_formats")
        ]
        return [*own_names, *sorted(name for name in eject_targets if name not in (*own_names, "docker"))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from mlapp.deploy.target import target_names

        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in target_names():
            return _make_eject_command(cmd_name)
        return command


cli = typer.Typer(cls=EjectGroup, help="Write the files that mlapp generates, to edit and keep.", no_args_is_help=True)


def eject_kubernetes(
    format: Annotated[str, typer.Option(help="yaml, kustomize or helm.")] = "yaml",
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("deploy"),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[
        str | None, typer.Option(help="The image, repository@sha256:…. By default, mlapp builds and pushes one.")
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


def eject_schema() -> None:
    """Print a JSON Schema of mlapp.yaml.

    Editors use it for completion and checks.

    Example:

      mlapp eject schema > mlapp.schema.json
      # then, as the first line of mlapp.yaml:  # yaml-language-server: $schema=mlapp.schema.json
    """
    from mlapp.deploy.settings_schema import make_settings_schema

    output.print_json(make_settings_schema())


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
    from mlapp.images.project_image import bundle_project
    from mlapp.images.user_dockerfile import eject_dockerfile
    from mlapp.project import Project

    project = Project.find(environment=environment)
    bundle = bundle_project(project, model=model, environment=environment, warn=output.print_warning)
    with output.show_progress() as report:
        written = eject_dockerfile(bundle, project.root, platform=platform, progress=report, warn=output.print_warning)
    for path in written:
        output.print_result(str(path))


def eject_compose(
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[str | None, typer.Option(help="The image. By default, mlapp builds one.")] = None,
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
        image: Annotated[str | None, typer.Option(help="The image. By default, mlapp builds one.")] = None,
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
    from mlapp.project_outputs import record_project_outputs

    project = Project.find(environment=environment)
    target = open_target_from_options(project, name, namespace)
    if not isinstance(target, EjectTarget):
        raise UsageError(f"The target {name} has no files to write.", "Use mlapp deploy --dry-run.")
    format = format or target.eject_formats[0]
    if format not in target.eject_formats:  # fail before building an image
        raise UsageError(f"There is no format '{format}'.", f"Formats: {', '.join(target.eject_formats)}.")
    shipment = make_shipment(
        project, target, model=model, image=image, environment=environment, progress=output.print_note
    )
    written = target.eject(shipment, to, format)
    record_project_outputs(project.root, written)
    for path in written:
        output.print_result(str(path))


cli.command("k8s")(eject_kubernetes)
cli.command("rbac")(eject_permissions.eject_rbac)
cli.command("iam")(eject_permissions.eject_iam)
cli.command("schema")(eject_schema)
cli.command("dockerfile")(eject_dockerfile)
cli.command("compose")(eject_compose)
cli.command("rules")(eject_monitoring.eject_rules)
cli.command("grafana")(eject_monitoring.eject_grafana)
cli.command("ci")(eject_pipelines.eject_ci)
cli.command("gitops")(eject_pipelines.eject_gitops)
