"""Specification of an image: base, layers and program. Input for both a Dockerfile and an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from mlapp.bundle import Bundle
from mlapp.bundle.bundle import NO_VERSION
from mlapp.config import Settings
from mlapp.errors import ConfigError, suggest_nearest

VENV = "/opt/venv"
APP = "/app"
USER = "65532:65532"
"""A user ID that no system uses, as in distroless images. It is numeric, so Kubernetes can see that it is not root."""

LAYOUT = ".mlapp/image"
"""Folder in the project with the layers' files, from which a Dockerfile copies."""

PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""By supported platform: the machine's name in wheels."""


@dataclass(frozen=True)
class LayerCopy:
    """One layer: the folder `source` of the layout becomes `target` in the image."""

    source: str
    target: str


LAYERS = (LayerCopy("venv", VENV), LayerCopy("model", f"{APP}/model"), LayerCopy("app", APP))
"""Ordered from least to most frequently changing."""


@dataclass(frozen=True)
class ImageSpec:
    """An image of a bundle.

    Attributes:
        base: reference of the base image.
        created: Unix time in seconds.
    """

    base: str
    python: str
    port: int
    grace: float
    created: int
    system_packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[LayerCopy, ...]:
        return LAYERS

    @property
    def entrypoint(self) -> list[str]:
        return [f"{VENV}/bin/python", "-m", "mlapp", "serve", "--bundle", APP]

    @property
    def healthcheck(self) -> list[str]:
        return [
            f"{VENV}/bin/python",
            f"{VENV}/lib/python{self.python}/site-packages/mlapp/images/healthcheck.py",
            str(self.port),
        ]

    @property
    def workdir(self) -> str:
        return f"{APP}/code"


def make_image_spec(bundle: Bundle) -> ImageSpec:
    """The specification of a bundle's image."""
    settings, manifest = bundle.settings, bundle.manifest
    return ImageSpec(
        base=settings.image.base or f"python:{manifest.python}-slim",
        python=manifest.python,
        port=settings.serve.port or 8000,
        grace=settings.serve.grace + settings.serve.drain,
        created=manifest.created,
        system_packages=tuple(sorted(settings.image.system_packages)),
        environment={
            "MLAPP_SERVE__HOST": "0.0.0.0",  # noqa: S104 (in a container, whose ports are published or not)
            "HOME": "/tmp",  # noqa: S108 (the user has no home, and libraries that cache want one)
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **settings.image.env,
        },
        labels=_make_image_labels(bundle),
    )


def _make_image_labels(bundle: Bundle) -> dict[str, str]:
    """OCI annotations, and mlapp's own labels: content of the image, and location of its bill of materials."""
    manifest = bundle.manifest
    created = datetime.fromtimestamp(manifest.created, timezone.utc)
    version = str(manifest.version) if manifest.version != NO_VERSION else None
    labels = {
        "org.opencontainers.image.title": manifest.app,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.source": manifest.source,
        "org.opencontainers.image.revision": format_image_revision(bundle),
        "mlapp.app": manifest.app,
        "mlapp.model.version": version,
        "mlapp.bundle": bundle.hash,
        "mlapp.sbom": f"{APP}/sbom.cdx.json",
    }
    return {name: value for name, value in labels.items() if value}


def format_image_revision(bundle: Bundle) -> str | None:
    """The commit of the code, with the suffix `-dirty` if there are changes; None outside a repository."""
    git = bundle.manifest.git
    return f"{git.commit}{'-dirty' if git.dirty else ''}" if git else None


def choose_image_platforms(settings: Settings, requested: list[str] | None, engine_platform: str) -> list[str]:
    """The platforms to build: from the flag, otherwise from mlapp.yaml, otherwise the engine's own.

    Raises:
        ConfigError: a platform is not supported.
    """
    platforms = [part.strip() for text in requested or [] for part in text.split(",")] or settings.image.platforms
    for platform in platforms:
        if platform not in PLATFORMS:
            raise ConfigError(
                f"'{platform}' is not a platform that can be built for.{suggest_nearest(platform, PLATFORMS)}",
                f"Known: {', '.join(PLATFORMS)}.",
            )
    return list(dict.fromkeys(platforms)) or [engine_platform]
