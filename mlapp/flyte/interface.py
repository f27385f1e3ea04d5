"""What mlapp asks of an engine that runs pipelines elsewhere: build, register, run, watch, fetch, schedule.

flytekit's engine is the one there is. Flyte 2's SDK can stand beside it: the command line knows this interface only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mlapp.store import ModelVersion

Workflow = Literal["train", "predict"]
Phase = Literal["queued", "running", "succeeded", "failed", "aborted"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Registration:
    """What is registered: its version, and what was new; nothing was when it had been registered before."""

    version: str
    created: tuple[str, ...]
    dirty: bool = False


@dataclass(frozen=True)
class Step:
    """One task of a run. `error` is what it failed with."""

    name: str
    phase: Phase
    started: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    cached: bool = False


@dataclass(frozen=True)
class Run:
    """A run of a workflow: its id in Flyte, where to look at it, and how far it is."""

    id: str
    workflow: str
    version: str
    phase: Phase
    url: str
    started: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    schedule: str | None = None
    steps: tuple[Step, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.phase in ("succeeded", "failed", "aborted")


@dataclass(frozen=True)
class ScheduleState:
    """A schedule as it is registered: `when` as cron or a rate, and whether it is active."""

    name: str
    when: str
    active: bool
    version: str
    promote_if: str = ""


class Engine(ABC):
    """Runs one project's pipeline.

    Every method raises `FlyteError` for what the other side refuses, `UnreachableError` when it does not answer.
    """

    @abstractmethod
    def build(self, tell: Tell) -> str:
        """The image that tasks run in, by reference; built only if the project's dependencies changed."""

    @abstractmethod
    def register(self, image: str, tell: Tell) -> Registration:
        """Register the project's workflows and schedules; once for the same code, image and settings."""

    @abstractmethod
    def run(self, workflow: Workflow, parameters: Mapping[str, Any], registration: Registration, **given: Any) -> Run:
        """Start a workflow with values for its parameters."""

    @abstractmethod
    def watch(self, run: str, tell: Callable[[Run], None]) -> Run:
        """Follow a run to its end; `tell` is called when something changed.

        Raises:
            RunFailedError: it failed, or was aborted.
        """

    @abstractmethod
    def fetch(self, run: str) -> ModelVersion:
        """Take the model of a training run that succeeded into the store; once, however often it is asked."""

    @abstractmethod
    def runs(self, *, limit: int = 20, schedule: str | None = None) -> Sequence[Run]:
        """The latest runs, newest first."""

    @abstractmethod
    def show(self, run: str) -> Run:
        """A run with its steps."""

    @abstractmethod
    def abort(self, run: str, reason: str) -> None:
        """Stop a run."""

    @abstractmethod
    def schedules(self) -> Sequence[ScheduleState]:
        """The schedules that are registered."""

    @abstractmethod
    def schedule(self, name: str, active: bool) -> ScheduleState:
        """Switch a schedule on or off."""
