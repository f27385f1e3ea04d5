"""Target: a place where a Shipment runs. Docker, Kubernetes, KServe, Seldon, Lambda and Flyte implement it.

    render → apply → status → rollback → delete

That is all a target must do. Optional abilities (a diff, logs, a canary, files to write) are the small protocols in
`mlapp.deploy.abilities`; commands check for them with `isinstance` and report a missing one. Targets, including mlapp's
own, register in the entry-point group `mlapp.targets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeVar

from mlapp import plugins
from mlapp.config import Section, Serve, Settings, decode_section, merge_settings
from mlapp.errors import MlappError, UsageError, suggest_nearest
from mlapp.reporting import Reporter

S = TypeVar("S", bound=Section)


State = Literal["pending", "live", "canary", "superseded", "failed", "aborted"]


class DeployError(MlappError):
    """A deploy failed, or the target refused a request. `what` describes the resulting state."""


@dataclass(frozen=True)
class Shipment:
    """An app's code and one version of its model, in an immutable image.

    Args:
        app: the app's name.
        image: reference of the image: `repository@sha256:…` if a registry is involved, otherwise a local image ID.
        model_version: the version, in the model store, of the model in the image (or at `model_uri`).
        code_revision: the commit of the user's code, with the suffix `-dirty` if there were uncommitted changes.
        example: `inputs` of a request that the model must be able to answer, from its schema; None if it has none.
        model_uri: location of the model version in an object store, for targets that fetch it at start.
        labels: additional labels, such as owner=team-a.
        manifest: the version's manifest in JSON, for targets that provide the model separately from the image.
        monitor_schedule: when to close monitoring windows, as a cron expression, for targets with a scheduler; None if
            another pod cannot read the monitoring data.
        monitor_trains: whether closing a window can train a model, which takes longer.
        monitor_bucket: whether the pods write monitoring data to an object store.
        alert_ports: the ports of the webhooks that receive alarms.
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
    monitor_trains: bool = False
    monitor_bucket: bool = False
    alert_ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Release:
    """One Shipment as it was applied. Numbers start at 1 and are never reused.

    Args:
        number: the release's number.
        app: the app's name.
        target: the target's name.
        shipment: the shipment.
        created: the time of creation, in UTC.
        state: `live` serves; `canary` serves a part of the traffic; the others do not serve.
        by: the deployer's user name at the target.
        note: its purpose, such as `rollback to 3`, or why it failed.
        url: its URL, if it is reachable from outside.
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
    """One running instance of the server: a container, a pod, or a function instance."""

    name: str
    ready: bool
    state: str
    release: int | None = None
    restarts: int = 0
    node: str | None = None
    started: datetime | None = None


@dataclass(frozen=True)
class Event:
    """A recent event of the target. `subject` is the object concerned, such as `Pod/digits-7d9`."""

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
        release: the live release, or None.
        canary: the canary release, if any.
        desired: the desired number of replicas.
        ready: the number of replicas that run and answer.
        replicas: all replicas.
        traffic: percentage of the requests by release number.
        url: the app's URL.
        scaling: a description of the scaling: `2–10 replicas at 70 % CPU, now 41 %`.
        events: the latest events, oldest first.
        problems: descriptions of problems; empty if there are none.
        place: the location: `context kind, namespace team-a`.
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
    """A reporter that discards its text."""


class Target(ABC, Generic[S]):
    """A place where one app runs. The constructor makes no request; the methods do.

    Every method raises `DeployError` if the target refuses, and `MissingExtraError` if its packages are not installed.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Section]]
    needs_registry: ClassVar[bool] = True
    """Whether the image must be in a registry, by digest, before `apply`."""
    ships_image: ClassVar[bool] = True
    """Whether the target runs the app's image; if not, no image is built."""
    unsupported_options: ClassVar[frozenset[str]] = frozenset({"--force-conflicts"})
    """Options of `mlapp deploy` that the target does not support, so the command refuses them: `--force-conflicts`,
    `--image` and `--model`. A target whose methods read `take_over` removes the first."""
    checked_unconfigured: ClassVar[bool] = True
    """Whether `mlapp doctor` checks the target in projects without settings for it; False for special platforms."""
    flags_type: ClassVar[type[Section]] = Section
    """The target's flags for every command with `--target`: a section whose fields become options (`region:
    str | None` becomes `--region`, its `Meta(description=…)` the help). A flag overrides the setting of that name."""

    def __init__(self, app: str, settings: S, serve: Serve | None = None) -> None:
        """`settings` is the section `targets.<name>`; `serve` has the server's settings, for the probes."""
        self.app = app
        self.settings = settings
        self.serve = serve or Serve()

    def fetches_model(self, model_uri: str | None) -> bool:
        """Whether the platform fetches the version at start, so that the image does not need it.

        Args:
            model_uri: the version's location if the model store is in a bucket.
        """
        return False

    @abstractmethod
    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """The documents that `apply` would send, as plain data in order. Makes no request."""

    @abstractmethod
    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        """Make `shipment` live, and return when it answers. On failure, restore the previous release and raise.

        With `take_over`, also overwrite fields and objects of other tools. Otherwise, they are an error.
        """

    @abstractmethod
    def status(self) -> Status:
        """The state of the app; with `release=None` if it was never deployed."""

    @abstractmethod
    def releases(self) -> list[Release]:
        """The releases available for rollback, and failed ones, oldest first."""

    @abstractmethod
    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Make release `to`, by default the one before the live release, live again as a new release."""

    @abstractmethod
    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        """Remove all applied objects; returns their names."""


def target_names() -> list[str]:
    """The names of the installed targets."""
    return sorted(plugins.list_plugins(plugins.TARGETS))


def find_target_class(name: str) -> type[Target[Any]]:
    """The class of the target `name`.

    Raises:
        UsageError: there is no such target.
        PluginError: its package cannot be imported.
    """
    names = target_names()
    if name not in names:
        raise UsageError(
            f"There is no target '{name}'.{suggest_nearest(name, names)}",
            f"Installed targets: {', '.join(names) or 'none'}.",
        )
    target_class: type[Target[Any]] = plugins.load_plugin(plugins.TARGETS, name)
    return target_class


def open_target(name: str, app: str, settings: Settings, overrides: Mapping[str, Any] | None = None) -> Target[Any]:
    """The target `name` for `app`, with its section of mlapp.yaml; `overrides` replace settings of that section.

    Raises:
        UsageError: there is no such target.
        PluginError: its package cannot be imported.
        ConfigError: the section does not fit the target's settings.
    """
    target_class = find_target_class(name)
    section = merge_settings(settings.targets.get(name) or {}, overrides or {})
    return target_class(app, decode_section(target_class.settings_type, section, f"targets.{name}"), settings.serve)
