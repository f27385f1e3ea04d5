"""Turn a project into a Shipment: bundle it, build the image, and push it to the target's registry."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec

from mlapp import provenance
from mlapp.config import Settings
from mlapp.deploy.abilities import RegistryTarget
from mlapp.deploy.target import DeployError, Shipment, Target
from mlapp.errors import UsageError
from mlapp.monitoring.run_schedule import has_monitoring_bucket, list_alert_ports, make_cron
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.store import Manifest

PINNED_IMAGE = re.compile(r".+@sha256:[0-9a-f]{64}")


def make_shipment(
    project: Project,
    target: Target[Any],
    *,
    model: str = "latest",
    image: str | None = None,
    environment: str | None = None,
    progress: Reporter,
) -> Shipment:
    """The shipment for a deploy of the project.

    Args:
        model: a version, alias or `latest` of the store.
        image: an existing image, instead of building one; by digest if the target pulls it.
        environment: the key in `environments:` whose settings the image uses.
        progress: receives each step of the build and push.

    Raises:
        UsageError: `image` has a tag instead of a digest; a tag can point to another image later.
        MlappError: the bundle, the image or the push failed.
    """
    manifest: Manifest | None
    if image is None and not target.ships_image:
        manifest, image = _find_shipped_manifest(project, model), ""
    elif image is None:
        manifest = project.store.signed_manifest(project.name, project.store.resolve(project.name, model))
        has_model = project.settings.serve.wsgi is not None or not target.fetches_model(
            _find_shipped_version_uri(project, manifest)
        )
        image = _build_shipped_image(project, manifest, environment, target, has_model, progress)
    elif target.needs_registry and not PINNED_IMAGE.fullmatch(image):
        raise UsageError(
            f"--image {image} does not name an image by its digest.",
            "Give it as repository@sha256:…; `docker buildx imagetools inspect IMAGE` prints it.",
        )
    else:
        manifest = _find_shipped_manifest(project, model)
    git = provenance.read_git_state(project.root)
    shipment = Shipment(
        app=project.name,
        image=image,
        model_version=str(manifest.version) if manifest else None,
        code_revision=f"{git.commit[:12]}{'-dirty' if git.dirty else ''}" if git else None,
        example=_read_shipped_example(manifest),
        model_uri=_find_shipped_version_uri(project, manifest),
        manifest=msgspec.json.encode(manifest).decode() if manifest else None,
    )
    return add_monitoring_needs(shipment, project.settings)


def add_monitoring_needs(shipment: Shipment, settings: Settings) -> Shipment:
    """The shipment with the requirements of the monitoring settings."""
    runs_here = settings.monitor.run is True
    return replace(
        shipment,
        monitor_schedule=make_cron(settings) if runs_here else None,
        monitor_trains=settings.monitor.retrain is not None,
        monitor_bucket=has_monitoring_bucket(settings),
        alert_ports=list_alert_ports(settings) if runs_here else (),
    )


def _read_shipped_example(manifest: Manifest | None) -> Any:
    if manifest is None:
        return None
    return manifest.schema.example_inputs(has_feature_loader=manifest.schema.inputs is not None)


def _find_shipped_manifest(project: Project, model: str) -> Manifest | None:
    """The version's manifest; None if the store of an existing image is not available here."""
    try:
        return project.store.signed_manifest(project.name, project.store.resolve(project.name, model))
    except UsageError:
        if model != "latest":
            raise
        return None


def _find_shipped_version_uri(project: Project, manifest: Manifest | None) -> str | None:
    """The version's location, if the store is an object store."""
    url = project.settings.store.url
    if manifest is None or "://" not in url or url.startswith("file://"):
        return None
    return f"{url.rstrip('/')}/{project.name}/{manifest.folder}"


def _build_shipped_image(
    project: Project,
    manifest: Manifest,
    environment: str | None,
    target: Target[Any],
    has_model: bool,
    progress: Reporter,
) -> str:
    from mlapp.images.project_image import build_project_image
    from mlapp.images.push import RegistryLogin

    push, registry = target.needs_registry, None
    if isinstance(target, RegistryTarget):
        registry = target.open_registry(progress)
    elif push and "/" not in (project.settings.image.name or ""):
        raise DeployError(
            "The cluster pulls images from a registry, but mlapp.yaml names none.",
            f"Set image.name to a repository in one, such as `image: "
            f"{{name: registry.example.org/team/{project.name}}}`.",
        )
    images = build_project_image(
        project,
        model=manifest.version,
        environment=environment,
        tag=registry.repository if registry else None,
        platform=list(target.platforms) if isinstance(target, RegistryTarget) else None,
        login=RegistryLogin(registry.user, registry.password) if registry else None,
        has_model=has_model,
        should_push=push,
        progress=progress,
        warn=lambda text: progress(f"Warning: {text}"),
    )
    return images[0].pinned
