"""An image to build: its content, its platform, and the reporters of progress and warnings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlapp.bundle import Bundle
from mlapp.images.image_spec import ImageSpec
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker import DockerClient


@dataclass(frozen=True)
class BuildJob:
    """The input that the steps of a build share.

    Attributes:
        platform: such as linux/arm64.
        progress: receives each step.
        warn: receives advice for the user.
        reference: the `repository:tag` of the completed image; empty if only its files are written.
        project_root: the project's folder. If it has a Dockerfile, the build uses it.
    """

    client: DockerClient
    bundle: Bundle
    spec: ImageSpec
    platform: str
    progress: Reporter
    warn: Reporter
    reference: str = ""
    project_root: Path | None = None

    @property
    def dockerfile(self) -> Path | None:
        """The project's own Dockerfile, if it has one."""
        file = None if self.project_root is None else self.project_root / "Dockerfile"
        return file if file is not None and file.is_file() else None
