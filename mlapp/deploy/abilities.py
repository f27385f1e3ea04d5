"""Optional abilities of a target, as protocols. Commands check for them with `isinstance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from mlapp.deploy.target import LogLine, Release, Shipment, ignore_progress
from mlapp.project import Project
from mlapp.reporting import Reporter

CompareQuality = Callable[[str | None, str | None], str | None]
"""Takes the model versions of the live release and the canary; returns why the canary is worse, or None."""


@runtime_checkable
class CheckTarget(Protocol):
    """Can check whether the platform that it deploys to is reachable."""

    def check(self) -> str:
        """Name and address of the service that answers, in one line. Raises `MlappError` if none answers."""
        ...


@runtime_checkable
class CodeTarget(Protocol):
    """Runs the project's code in addition to or instead of its image, so it needs the project."""

    project: Project | None
    """By default, the current folder's project."""


@dataclass(frozen=True)
class RegistryPlace:
    """A repository of a registry, and a login for it."""

    repository: str
    user: str
    password: str = field(repr=False)


@runtime_checkable
class RegistryTarget(Protocol):
    """Has its own registry, to which images are pushed if mlapp.yaml names none."""

    platforms: Sequence[str]
    """The platform of images, such as linux/arm64."""

    def open_registry(self, progress: Reporter = ignore_progress) -> RegistryPlace:
        """The app's repository, created if missing."""
        ...


@runtime_checkable
class IamTarget(Protocol):
    """Runs on AWS with an IAM role."""

    def iam(self) -> dict[str, Any]:
        """A CloudFormation template with the minimal role and the deployer's permissions."""
        ...


@runtime_checkable
class DiffTarget(Protocol):
    """Can show the changes that `apply` would make."""

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff from the current to the planned state; empty if nothing would change."""
        ...


@runtime_checkable
class LogTarget(Protocol):
    """Can show the output of the replicas."""

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Log lines of all replicas: the last `tail` of each, from the last `since` seconds; `follow` never ends."""
        ...


@runtime_checkable
class PredictTarget(Protocol):
    """Can make a prediction without a public address."""

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The response to `POST /predict`, for plain values or for a `RequestBody`, which is sent unchanged."""
        ...


@runtime_checkable
class CanaryTarget(Protocol):
    """Can run a release on a part of the traffic."""

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Reporter = ignore_progress, take_over: bool = False
    ) -> Release:
        """Give `percent` of the traffic to `shipment`, beside the live release."""
        ...

    def judge(
        self, seconds: float, *, progress: Reporter = ignore_progress, compare_quality: CompareQuality | None = None
    ) -> Release:
        """Watch the canary for `seconds`; then promote it, or abort it by its error rate, latency and quality."""
        ...

    def promote(self, *, progress: Reporter = ignore_progress) -> Release:
        """Make the canary the live release."""
        ...

    def abort(self, *, progress: Reporter = ignore_progress) -> Release:
        """Remove the canary; returns it, as `aborted`."""
        ...


@runtime_checkable
class CanaryRenderTarget(Protocol):
    """Can render a canary without starting it."""

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents that `canary` would apply, in order, as far as the settings determine them."""
        ...


@runtime_checkable
class EjectTarget(Protocol):
    """Can write the files that it generates, for the user to edit and keep."""

    eject_formats: ClassVar[tuple[str, ...]]

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        """Write the files into `folder`; returns them. Raises `DeployError` rather than overwrite one."""
        ...
