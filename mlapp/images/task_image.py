"""The image for a cluster's tasks: the project's dependencies, and mlapp with an extra. No code and no model."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlapp import distribution
from mlapp.bundle.bundle import CODE, FORMAT, Bundle, BundleManifest
from mlapp.images import dependencies, registry
from mlapp.images.build import build_images
from mlapp.images.image_spec import LAYERS, ImageSpec, LayerCopy
from mlapp.images.push import push_images
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.secret_variables import refuse_secret_variables
from mlapp.temporary_folders import open_temporary_folder

PLATFORM = "linux/amd64"
"""The platform of clusters if mlapp.yaml names none."""
EPOCH = 315532800
"""1980, as for all files, so that the image does not depend on the time of the build."""


@dataclass(frozen=True)
class TaskBundle(Bundle):
    """A bundle with only the dependencies of the project `task_project`."""

    task_project: Project

    @cached_property
    def project(self) -> Project:
        return self.task_project


@dataclass(frozen=True)
class TaskImageSpec(ImageSpec):
    """An image without an entry point: the cluster sets the command and provides the code."""

    @property
    def layers(self) -> tuple[LayerCopy, ...]:
        return LAYERS[:1]

    @property
    def entrypoint(self) -> list[str]:
        return []

    @property
    def healthcheck(self) -> list[str]:
        return []

    @property
    def workdir(self) -> str:
        return "/tmp"  # noqa: S108 (every user of the task may write there)


def build_task_image(
    project: Project,
    repository: str,
    extra: str,
    *,
    progress: Reporter = lambda _: None,
    warn: Reporter = lambda _: None,
) -> str:
    """The image of a project's tasks in a registry, by digest; built and pushed unless the registry has it.

    Its tag depends on the locked requirements, mlapp, and `image:` of mlapp.yaml.

    Args:
        repository: such as registry.example.org/team/digits.
        extra: the extra of mlapp, such as `flyte`.

    Raises:
        ImageError: engine, base or a wheel is missing, or the registry refuses. UvError: the requirements do not
            resolve.
    """
    root = project.root / ".mlapp" / "tasks"
    root.mkdir(parents=True, exist_ok=True)
    with open_temporary_folder("image", root) as folder:
        bundle = _make_task_bundle(project, folder / "bundle", extra, warn)
        spec = _make_task_image_spec(bundle)
        platforms = project.settings.image.platforms or [PLATFORM]
        parts = [dependencies.fingerprint_image_dependencies(bundle), spec.base, *spec.system_packages, *platforms]
        parts += [f"{name}={value}" for name, value in spec.environment.items()]
        tag = f"tasks-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"
        digest = registry.find_registry_digest(repository, tag)
        if digest is None:
            progress(f"build {repository}:{tag}: what the tasks need has changed")
            images = build_images(
                bundle, spec=spec, tag=f"{repository}:{tag}", platform=platforms, progress=progress, warn=warn
            )
            digest = push_images(images, progress=progress)[0].digest
        return f"{repository}@{digest}"


def _make_task_bundle(project: Project, folder: Path, extra: str, warn: Reporter) -> TaskBundle:
    from mlapp.bundle.build import IMAGE_TODO, describe_bundle_files
    from mlapp.bundle.locked_requirements import write_bundle_requirements

    refuse_secret_variables("image.env", project.settings.image.env, "in the image", IMAGE_TODO)
    (folder / CODE).mkdir(parents=True)
    python = project.settings.image.python or "{}.{}".format(*sys.version_info)
    versions = project.store.versions(project.name)
    # Use the versions that trained the latest model here, so that the same data results in the same model.
    libraries = versions[-1].libraries if versions else {}
    _, source = write_bundle_requirements(project, libraries, python, folder, extra=f"[{extra}]", warn=warn)
    manifest = BundleManifest(
        format=FORMAT,
        app=project.name,
        version=0,
        created=EPOCH,
        python=python,
        mlapp=distribution.version(),
        requirements=source,
        files=describe_bundle_files(folder),
    )
    return TaskBundle(folder, manifest, project)


def _make_task_image_spec(bundle: TaskBundle) -> TaskImageSpec:
    image, manifest = bundle.settings.image, bundle.manifest
    return TaskImageSpec(
        base=image.base or f"python:{manifest.python}-slim",
        python=manifest.python,
        port=0,
        grace=0,
        created=EPOCH,
        system_packages=tuple(sorted(image.system_packages)),
        environment={"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **image.env},  # noqa: S108 (as for a server)
        labels={"org.opencontainers.image.title": f"{manifest.app}: tasks", "mlapp.app": manifest.app},
    )
