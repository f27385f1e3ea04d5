"""Create a project's image in one call: bundle, build, push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.errors import ConfigError, MissingExtraError
from mlapp.images import scan
from mlapp.images.build import Image, build_images
from mlapp.images.engine import connect_image_engine
from mlapp.images.push import Bar, RegistryLogin, push_images
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mlapp.bundle import Bundle
    from mlapp.bundle.build import BundleOptions
    from mlapp.project import Project


def bundle_project(project: Project, *, warn: Reporter, **options: Unpack[BundleOptions]) -> Bundle:
    """`mlapp.bundle.build.build_bundle`, with an error if the packages that it needs are missing.

    Raises:
        MissingExtraError: the `docker` extra is not installed.
    """
    try:
        from mlapp.bundle.build import build_bundle
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("mlapp"):
            raise
        raise MissingExtraError("Bundles and images", "docker") from None
    return build_bundle(project, warn=warn, **options)


def build_project_image(
    project: Project,
    *,
    tag: str | None = None,
    platform: list[str] | None = None,
    should_scan: bool = False,
    should_push: bool = False,
    login: RegistryLogin | None = None,
    progress: Reporter = lambda _: None,
    warn: Reporter = lambda _: None,
    bar: Bar = lambda *_: None,
    **options: Unpack[BundleOptions],
) -> list[Image]:
    """Build the image of a project and one version of its model, optionally scan it, and then optionally push it.

    The first image is the one to run. If several platforms are pushed, it is their image index.

    Args:
        options: see `mlapp.bundle.build.build_bundle`. With `has_model=False`, the version only determines the
            libraries, and a platform mounts its files beside the image.

    Raises:
        ConfigError: `should_push` is set, but the image's name has no registry. MlappError: see `bundle_project`,
            `build_images`, `scan_image` and `push_images`.
    """
    if should_push and "/" not in (tag or project.settings.image.name or ""):
        raise ConfigError(
            "The image cannot be pushed, because its name has no registry.",
            f"Set image.name in mlapp.yaml, or give --tag registry.example.org/team/{project.name}.",
        )
    with connect_image_engine():
        pass  # without an engine, fail before the requirements are resolved
    scanner = scan.find_scanner() if should_scan else []
    progress("bundle the project")
    bundle = bundle_project(project, warn=warn, **options)
    images = build_images(bundle, project_root=project.root, tag=tag, platform=platform, progress=progress, warn=warn)
    for image in images if should_scan else ():
        progress(f"scan {image.reference}")
        scan.scan_image(image, scanner)
    return push_images(images, login=login, bar=bar, progress=progress) if should_push else images
