"""Target: a place where a Shipment runs. Docker, Kubernetes, KServe, Seldon, Lambda and Flyte fit this one interface.

    render → apply → status → rollback → delete

That is all a target must do. Optional abilities (a diff, logs, a canary, files to write) are the small protocols
below; a command asks with `isinstance` and says so when the target has not got it. Targets are found by the
entry-point group `mlapp.targets`; ours come in by the same door.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

from mlapp import plugins
from mlapp.config import Section, Serve, Settings, decode_section, merge_settings
from mlapp.errors import MlappError, UsageError, suggest_nearest
from mlapp.project import Project
from mlapp.reporting import Reporter

S = TypeVar("S", bound=Section)


CompareQuality = Callable[[str | None, str | None], str | None]
"""Gets the versions of the live release and of the canary, and says why the canary's is worse; None if it is not."""
State = Literal["pending", "live", "canary", "superseded", "failed", "aborted"]


class DeployError(MlappError):
    """Shipping failed, or the target refused; `what` says in which state it was left."""


@dataclass(frozen=True)
class Shipment:
    """What is shipped: an app's code and one version of its model, in an image that never changes.

    Args:
        app: the app's name.
        image: reference of the image: `repository@sha256:…` wherever a registry takes part; a local image id otherwise.
        model_version: the version in the model store that is in the image (or that `model_uri` holds).
        code_revision: the commit of the user's code, with `-dirty` after it when something was not committed.
        example: `inputs` of a request that the model must be able to answer, from its schema; None when it has none.
        model_uri: location of the model version in an object store, for targets that fetch it at start.
        labels: additional labels, such as owner=team-a.
        manifest: the version's manifest in JSON, for targets that hand the server its model apart from the image.
        monitor_schedule: how often windows are closed, as a cron expression, for targets that have a clock; None where
            monitoring's data are in no place that another pod could read.
    """

    app: str
    image: str
    model_version: str | None = None
    code_revision: str | None = None
    example: Sequence[Any] | None = None
    model_uri: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    monitor_schedule: str | None = None
    manifest: str | None = None


@dataclass(frozen=True)
class Release:
    """One Shipment as it was applied. Numbers count from 1 and are never used again.

    Args:
        number: the release's number.
        app: the app's name.
        target: the target's name.
        shipment: what was shipped.
        created: when, in UTC.
        state: `live` serves; `canary` serves a part; the others do not serve.
        by: who did it, as the target knows them.
        note: what it was for: `rollback to 3`, or why it failed.
        url: where it answers, when it does from outside.
    """

    number: int
    app: str
    target: str
    shipment: Shipment
    created: datetime
    state: State
    by: str | None = None
    note: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Replica:
    """One running copy of the server: a container, a pod, a function's instance."""

    name: str
    ready: bool
    state: str
    release: int | None = None
    restarts: int = 0
    node: str | None = None
    started: datetime | None = None


@dataclass(frozen=True)
class Event:
    """A recent event of the target. `subject` is the object that it concerns, such as `Pod/digits-7d9`."""

    time: datetime
    kind: Literal["normal", "warning"]
    subject: str
    reason: str
    message: str
    count: int = 1


@dataclass(frozen=True)
class Status:
    """State of an app at a target.

    Args:
        app: the app's name.
        target: the target's name.
        release: the live release; None when there is none.
        canary: the release on trial, if any.
        desired: replicas that should run.
        ready: replicas that do, and answer.
        replicas: each of them.
        traffic: percent of the requests that go to each release's number.
        url: where it answers.
        scaling: what scales it, in words: `2–10 replicas at 70 % CPU, now 41 %`.
        events: the latest, oldest first.
        problems: what is wrong, in words; empty when all is well.
        place: where it is: `context kind, namespace team-a`.
    """

    app: str
    target: str
    release: Release | None
    canary: Release | None = None
    desired: int = 0
    ready: int = 0
    replicas: tuple[Replica, ...] = ()
    traffic: Mapping[int, int] = field(default_factory=dict)
    url: str | None = None
    scaling: str | None = None
    events: tuple[Event, ...] = ()
    problems: tuple[str, ...] = ()
    place: str | None = None


@dataclass(frozen=True)
class LogLine:
    """One line of one replica's output."""

    replica: str
    text: str
    time: datetime | None = None


def ignore_progress(_: str) -> None:
    """A reporter that ignores its text."""


class Target(ABC, Generic[S]):
    """A place where one app runs. The constructor makes no request; the methods do.

    Every method raises `DeployError` for what the target refuses, and `MissingExtraError` when its packages are
    not installed.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Section]]
    needs_registry: ClassVar[bool] = True
    """Whether the image must be in a registry, by digest, before `apply`."""
    ships_image: ClassVar[bool] = True
    """Whether it runs the app's image; for one that does not, none is built."""
    flags_type: ClassVar[type[Section]] = Section
    """Flags of its own for every command with `--target`: a section whose fields become options (`region: str | None`
    becomes `--region`, its `Meta(description=…)` the help). A flag that is given goes over the setting of that name."""

    def __init__(self, app: str, settings: S, serve: Serve | None = None) -> None:
        """`settings` is the target's own section, `targets.<name>`; `serve` the server's, which fits the probes."""
        self.app = app
        self.settings = settings
        self.serve = serve or Serve()

    def fetches_model(self, model_uri: str | None) -> bool:
        """Whether the platform fetches the version at start, so that the image need not hold it.

        Args:
            model_uri: the version's location, when the model store is in a bucket.
        """
        return False

    @abstractmethod
    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents that `apply` would send, as plain data in that order. Makes no request."""

    @abstractmethod
    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        """Make `shipment` live, and return when it answers; on failure go back to what was live before, and raise.

        `take_over` also takes what somebody else has changed or made, which is refused otherwise.
        """

    @abstractmethod
    def status(self) -> Status:
        """The state of the app; with `release=None` if it was never deployed."""

    @abstractmethod
    def releases(self) -> list[Release]:
        """The releases for a rollback, and those that failed, oldest first."""

    @abstractmethod
    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Make release `to` live again, as a new release; the one before the live one when absent."""

    @abstractmethod
    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        """Remove all applied objects; returns their names."""


@runtime_checkable
class CheckTarget(Protocol):
    """Can say whether what it deploys to answers."""

    def check(self) -> str:
        """Name and address of the service that answers, in one line. Raises `MlappError` if none answers."""
        ...


@runtime_checkable
class CodeTarget(Protocol):
    """Runs the project's code beside or instead of its image, and needs the project for it."""

    project: Project | None
    """The current folder's, when None."""


@dataclass(frozen=True)
class RegistryPlace:
    """A repository of a registry, and a login for it."""

    repository: str
    user: str
    password: str = field(repr=False)


@runtime_checkable
class RegistryTarget(Protocol):
    """Has a registry of its own, which images are pushed to where mlapp.yaml names none."""

    platforms: Sequence[str]
    """The platform of images, such as linux/arm64."""

    def open_registry(self, progress: Reporter = ignore_progress) -> RegistryPlace:
        """The app's repository, made when it is missing."""
        ...


@runtime_checkable
class IamTarget(Protocol):
    """Runs on AWS, with a role there."""

    def iam(self) -> dict[str, Any]:
        """A CloudFormation template of the least role, and of the rights of who deploys."""
        ...


@runtime_checkable
class DiffTarget(Protocol):
    """Can say what `apply` would change."""

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff from what runs to what would; empty when nothing would change."""
        ...


@runtime_checkable
class LogTarget(Protocol):
    """Can show what the replicas print."""

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Lines of all replicas: the last `tail` of each, of the last `since` seconds; `follow` never ends."""
        ...


@runtime_checkable
class PredictTarget(Protocol):
    """Can be asked for a prediction without a public address."""

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The answer of `POST /predict` to inputs as plain values, or to a `RequestBody`, which is sent unchanged."""
        ...


@runtime_checkable
class CanaryTarget(Protocol):
    """Can try a release on a part of the traffic."""

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
        """Take the canary away; returns it, as `aborted`."""
        ...


@runtime_checkable
class CanaryRenderTarget(Protocol):
    """Can show what a canary would be, without talking to anybody."""

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The documents that `canary` would send, as plain data in that order, as far as the settings tell."""
        ...


@runtime_checkable
class EjectTarget(Protocol):
    """Can write the files that it generates, for the user to edit and keep."""

    eject_formats: ClassVar[tuple[str, ...]]

    def eject(self, shipment: Shipment, folder: Path, format: str) -> list[Path]:
        """Write the files into `folder`; returns them. Raises `DeployError` rather than overwrite one."""
        ...


def target_names() -> list[str]:
    """The targets that are installed."""
    return sorted(plugins.list_plugins(plugins.TARGETS))


def find_target_class(name: str) -> type[Target[Any]]:
    """The class of the target `name`.

    Raises:
        UsageError: no such target.
        PluginError: its package cannot be imported.
    """
    known = target_names()
    if name not in known:
        raise UsageError(
            f"There is no target '{name}'.{suggest_nearest(name, known)}",
            f"Installed targets: {', '.join(known) or 'none'}.",
        )
    kind: type[Target[Any]] = plugins.load_plugin(plugins.TARGETS, name)
    return kind


def open_target(name: str, app: str, settings: Settings, overrides: Mapping[str, Any] | None = None) -> Target[Any]:
    """The target `name` for `app`, with its section of mlapp.yaml; `overrides` are laid over that section.

    Raises:
        UsageError: no such target.
        PluginError: its package cannot be imported.
        ConfigError: the section does not fit the target's settings.
    """
    kind = find_target_class(name)
    raw = merge_settings(settings.targets.get(name) or {}, overrides or {})
    return kind(app, decode_section(kind.settings_type, raw, f"targets.{name}"), settings.serve)
