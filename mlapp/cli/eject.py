"""`mlapp eject`: hand over what mlapp generates"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.target_options import Namespace, open_for
from mlapp.errors import UsageError

cli = typer.Typer(help="Write out what mlapp generates, to edit and keep.", no_args_is_help=True)

PLACEHOLDER = "registry.invalid/image@sha256:" + "0" * 64
"""Stands for the image where none is needed."""


@cli.command()
def k8s(
    format: Annotated[str, typer.Option(help="yaml, kustomize or helm.")] = "yaml",
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("deploy"),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[
        str | None, typer.Option(help="The image, repository@sha256:…; one is built and pushed when absent.")
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
    from mlapp.deploy import EjectTarget
    from mlapp.deploy.shipping import shipment_of
    from mlapp.project import Project

    project = Project.find(environment=environment)
    place = open_for(project, "k8s", namespace)
    assert isinstance(place, EjectTarget)
    if format not in place.eject_formats:  # before an image is built for nothing
        raise UsageError(f"There is no format '{format}'.", f"Formats: {', '.join(place.eject_formats)}.")
    shipment = shipment_of(project, place, model=model, image=image, settings_of=environment, progress=output.note)
    for path in place.eject(shipment, to, format):
        typer.echo(path)


@cli.command()
def rbac(namespace: Namespace = None, environment: Environment = None) -> None:
    """Print the least Role that deploying this app needs.

    With a ServiceAccount that has it.

    Example:

      mlapp eject rbac --namespace team-a | kubectl apply -f -
    """
    from mlapp.deploy import Shipment
    from mlapp.deploy.documents import to_yaml_all
    from mlapp.deploy.k8s import KubernetesTarget
    from mlapp.project import Project

    project = Project.find(environment=environment)
    place = open_for(project, "k8s", namespace)
    assert isinstance(place, KubernetesTarget)
    shipment = Shipment(project.name, PLACEHOLDER, model_uri="s3://placeholder")
    typer.echo(to_yaml_all(place.rbac(shipment)), nl=False)


@cli.command()
def schema() -> None:
    """Print a JSON Schema of mlapp.yaml.

    Editors complete and check it by that.

    Example:

      mlapp eject schema > mlapp.schema.json
      # then, as the first line of mlapp.yaml:  # yaml-language-server: $schema=mlapp.schema.json
    """
    from mlapp.deploy.schema import schema as of_settings

    output.json(of_settings())


@cli.command()
def dockerfile(
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    platform: Annotated[list[str] | None, typer.Option(help="linux/amd64 or linux/arm64. [the engine's]")] = None,
    environment: Environment = None,
) -> None:
    """Write the Dockerfile into the project.

    With what it copies; `mlapp build` uses it from then on.

    Example:

      mlapp eject dockerfile && docker build --tag digits .
    """
    from mlapp.images.eject import eject
    from mlapp.images.project import bundle_of
    from mlapp.project import Project

    def warn(text: str) -> None:
        output.note(f"Warning: {text}")

    project = Project.find(environment=environment)
    made = bundle_of(project, model=model, settings_of=environment, warn=warn)
    with output.progress() as tell:
        written = eject(made, project.root, platform=platform, progress=tell, warn=warn)
    for path in written:
        typer.echo(path)


@cli.command("compose")
def compose_file(
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    image: Annotated[str | None, typer.Option(help="The image; one is built when absent.")] = None,
    environment: Environment = None,
) -> None:
    """Write a compose file that does what deploying to docker does.

    Example:

      mlapp eject compose && docker compose up
    """
    from mlapp.deploy import EjectTarget
    from mlapp.deploy.shipping import shipment_of
    from mlapp.project import Project

    project = Project.find(environment=environment)
    place = open_for(project, "docker")
    assert isinstance(place, EjectTarget)
    shipment = shipment_of(project, place, model=model, image=image, settings_of=environment, progress=output.note)
    for path in place.eject(shipment, to, "compose"):
        typer.echo(path)
