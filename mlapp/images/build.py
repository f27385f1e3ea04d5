"""Build the image of a bundle."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlapp.bundle import Bundle
from mlapp.bundle.bundle import CODE_ONLY
from mlapp.errors import ConfigError
from mlapp.images import docker_archive, oci_archive, user_dockerfile
from mlapp.images.base import Base, find_base
from mlapp.images.build_job import BuildJob
from mlapp.images.engine import DiskFullError, ImageError, connect_image_engine, translate_image_engine_errors
from mlapp.images.image_spec import ImageSpec, choose_image_platforms, make_image_spec
from mlapp.images.layer_writer import write_layers
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker import DockerClient


REFERENCE = re.compile(
    r"(?:[a-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?"
)


@dataclass(frozen=True)
class Image:
    """An image in the engine.

    Attributes:
        reference: the repository and tag.
        id: `sha256:` and the hash of its configuration, which is the same for the same bundle, base and platform.
        size: uncompressed bytes of all layers.
        layers: the digests of its layers, from the base's first to the code.
        digest: `sha256:` and the hash of its manifest in a registry; None before the push.
    """

    reference: str
    id: str
    platform: str
    size: int
    layers: tuple[str, ...]
    digest: str | None = None

    @property
    def repository(self) -> str:
        return parse_repository_and_tag(self.reference)[0]

    @property
    def pinned(self) -> str:
        """An immutable reference of the image: `repository@digest` after a push, otherwise the ID."""
        return f"{self.repository}@{self.digest}" if self.digest else self.id


def build_images(
    bundle: Bundle,
    *,
    spec: ImageSpec | None = None,
    project_root: Path | None = None,
    tag: str | None = None,
    platform: list[str] | None = None,
    progress: Reporter = lambda _: None,
    warn: Reporter = lambda _: None,
) -> list[Image]:
    """Build the image of a bundle for each platform. An image is tagged only when it is complete.

    Args:
        spec: the content and the program of the image; by default a server.
        project_root: the project's folder. If it has a Dockerfile, the build uses it.
        tag: `repository:tag`; by default the app's name (or `image.name`) with version and bundle.
        platform: such as linux/arm64; by default the platforms in mlapp.yaml, or the engine's.

    Raises:
        ImageError: engine, base or a wheel is missing, or the engine failed. UvError: fetching dependencies failed.
    """
    spec = spec or make_image_spec(bundle)
    reference = format_image_reference(bundle, tag)
    with connect_image_engine() as client:
        with translate_image_engine_errors():
            version = client.version()
        platforms = choose_image_platforms(bundle.settings, platform, f"{version['Os']}/{version['Arch']}")
        images = []
        for platform_name in platforms:
            platform_reference = reference if len(platforms) == 1 else f"{reference}-{platform_name.rpartition('/')[2]}"
            job = BuildJob(
                client,
                bundle,
                spec,
                platform_name,
                progress,
                warn,
                reference=platform_reference,
                project_root=project_root,
            )
            images.append(_build_platform_image(job))
        return images


def format_image_reference(bundle: Bundle, tag: str | None = None) -> str:
    """The image's `repository:tag`.

    Raises:
        ConfigError: the reference is invalid.
    """
    default = f"{bundle.manifest.version or CODE_ONLY}-{bundle.hash}"
    name = tag or bundle.settings.image.name or re.sub(r"[^a-z0-9]+", "-", bundle.manifest.app.lower()).strip("-")
    if not REFERENCE.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of an image.",
            "Use lowercase letters, digits, '.', '_', '-' and '/', such as registry.example.org/team/digits:1.",
        )
    repository, name_tag = parse_repository_and_tag(name)
    return f"{repository}:{name_tag or default}"


def parse_repository_and_tag(reference: str) -> tuple[str, str]:
    """Repository and tag; the tag is empty if there is none."""
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def _build_platform_image(job: BuildJob) -> Image:
    image_id = user_dockerfile.build_user_dockerfile(job) if job.dockerfile else _assemble_image(job)
    with translate_image_engine_errors():
        details = job.client.api.inspect_image(image_id)
    return Image(job.reference, details["Id"], job.platform, details["Size"], tuple(details["RootFS"]["Layers"]))


def _has_uncompressed_layer_store(client: DockerClient) -> bool:
    """Whether the engine uses its own store with uncompressed layers, rather than containerd's image store."""
    with translate_image_engine_errors():
        status = client.info().get("DriverStatus") or []
    return not any("io.containerd.snapshotter" in str(value) for _, value in status)


class _MissingLayerError(ImageError):
    """The engine refused an image that reuses layers of an earlier one: it may have lost them."""


def _assemble_image(job: BuildJob) -> str:
    base = find_base(job.client, job.spec, job.platform, job.progress)
    has_uncompressed_layers = _has_uncompressed_layer_store(job.client)
    try:
        return _load_image(job, base, has_uncompressed_layers=has_uncompressed_layers, has_reuse=True)
    except _MissingLayerError:
        job.progress("a layer is missing in the engine: send all layers")
    return _load_image(job, base, has_uncompressed_layers=has_uncompressed_layers, has_reuse=False)


def _load_image(job: BuildJob, base: Base, *, has_uncompressed_layers: bool, has_reuse: bool) -> str:
    """Write the layers, and load the image into the engine; returns its ID.

    Args:
        has_reuse: whether to reuse layers that the engine has from an earlier image.
    """
    required_label = None if has_uncompressed_layers else oci_archive.BLOBS
    with write_layers(job, base, required_label=required_label, has_reuse=has_reuse) as image_layers:
        engine_layers = image_layers.engine_layers
        load_image = (
            docker_archive.load_docker_image
            if has_uncompressed_layers
            else partial(oci_archive.load_oci_image, engine_layers=engine_layers)
        )
        job.progress("load the image")
        try:
            return load_image(
                job.client, job.spec, base, image_layers.layers, labels=image_layers.labels, tag=job.reference
            )
        except DiskFullError:
            raise
        except ImageError as error:
            if not engine_layers.layers:
                raise
            raise _MissingLayerError(error.what, error.todo) from error
