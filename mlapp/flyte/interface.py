"""The interface of an engine that runs pipelines remotely: build, register, run, watch, fetch, schedule.

mlapp has one engine, which uses flytekit. An engine with Flyte 2's SDK would fit, too, because the command line uses
only this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from mlapp.flyte.errors import RunFailedError
from mlapp.reporting import Reporter
from mlapp.store import ModelVersion

Workflow = Literal["train", "predict", "tune", "train_split", "tune_split"]
"""Workflows that end in `_split` use the split data of an earlier run and read nothing."""
Phase = Literal["queued", "running", "succeeded", "failed", "aborted"]


@dataclass(frozen=True)
class Registration:
    """A registration: its version, and the newly created objects (none if it was registered before)."""

    version: str
    created: tuple[str, ...]
    dirty: bool = False


@dataclass(frozen=True)
class TaskRun:
    """One stage of a run. `error` is its error, `waits_for` the reason why its pod has not started, and `node` its
    task, which it shares with other stages if the task is fused.
    """

    name: str
    phase: Phase
    started: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    cached: bool = False
    waits_for: str | None = None
    node: str = ""


@dataclass(frozen=True)
class Run:
    """A run of a workflow: its ID in Flyte, its URL and its progress."""

    id: str
    workflow: str
    version: str
    phase: Phase
    url: str
    started: datetime | None = None
    seconds: float | None = None
    error: str | None = None
    schedule: str | None = None
    steps: tuple[TaskRun, ...] = ()

    @property
    def is_over(self) -> bool:
        return self.phase in ("succeeded", "failed", "aborted")


@dataclass(frozen=True)
class ScheduleState:
    """A registered schedule: `when` as cron or a rate, and whether it is active."""

    name: str
    when: str
    active: bool
    version: str
    promote_if: str = ""


@dataclass(frozen=True)
class Trials:
    """Parameter sets to try in one run, by full parameter name.

    Attributes:
        folds: number of folds of the cross-validation, split with `seed`.
        at_once: maximum number of concurrent trials.
        data_of: the run of `tune` whose data to reuse; None to read the data again.
    """

    parameters: Sequence[Mapping[str, Any]]
    folds: int
    seed: int
    at_once: int
    data_of: str | None = None


class TrialResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A trial's result: its metrics (None for NaN); or the error and its remedy, and the traceback
    of the user's function.
    """

    metrics: dict[str, float | None] = {}
    error: tuple[str, str] | None = None
    trace: str = ""


class Engine(ABC):
    """Runs one project's pipeline.

    Every method raises `FlyteError` if the remote side refuses, and `UnreachableError` if it does not answer.
    """

    @property
    @abstractmethod
    def place(self) -> str:
        """Description of the location where the pipeline runs."""

    @abstractmethod
    def run_here(self, parameters: Mapping[str, Any], progress: Reporter) -> ModelVersion:
        """Train like the tasks, but in this process, and save the version in the store. Makes no request."""

    @abstractmethod
    def render_documents(self, image: str | None) -> list[dict[str, Any]]:
        """The documents that `register_project` would send, as plain data. Makes no request."""

    @abstractmethod
    def build_image(self, progress: Reporter) -> str:
        """The reference of the tasks' image. Builds it only if the project's dependencies changed."""

    @abstractmethod
    def register_project(self, image: str, progress: Reporter) -> Registration:
        """Register the project's workflows, once for the same code, image and settings. Schedules do not change."""

    @abstractmethod
    def deploy_schedules(self, registration: Registration, progress: Reporter) -> None:
        """Point the project's schedules to the registration. Deactivated schedules stay off."""

    @abstractmethod
    def start_run(
        self,
        workflow: Workflow,
        parameters: Mapping[str, Any],
        registration: Registration,
        *,
        version: ModelVersion | None = None,
        trials: Trials | None = None,
        tuning: Mapping[str, Any] | None = None,
        data_of: str | None = None,
        run_id: str | None = None,
    ) -> Run:
        """Start a workflow with values for its parameters.

        Args:
            version: for `predict`, the model.
            trials: for `tune`, the parameters to try.
            tuning: for `train`, the search that found the parameters, for the version's manifest.
            data_of: for `train`, the run of `tune` whose data to reuse, if the app's tasks allow that.
            run_id: the run's ID. A repeated call with the same ID starts no second run.
        """

    @abstractmethod
    def follow_run(self, run: str, on_change: Callable[[Run], None], progress: Reporter) -> Run:
        """Follow a run to its end.

        Args:
            on_change: called with the run after each change.
            progress: receives a line when the connection is lost or restored.

        Raises:
            RunFailedError: the run failed or was aborted.
        """

    @abstractmethod
    def fetch_model(self, run: str, *, schedule: str | None = None) -> ModelVersion:
        """Save the model of a successful training run in the store. Repeated calls save it only once.

        Args:
            schedule: promote the model if it is better by this schedule's `promote_if`.
        """

    @abstractmethod
    def fetch_predictions(self, run: str) -> Any:
        """The predictions of a run of `predict`, as a DataFrame."""

    @abstractmethod
    def fetch_trial_results(self, run: str) -> list[TrialResult | None]:
        """The result of each trial of a run of `tune`, in order; None for a killed one."""

    @abstractmethod
    def list_logs(self, run: str) -> list[tuple[str, str]]:
        """The step and link of each log."""

    def read_logs(self, run: str) -> Iterator[tuple[str, str]]:
        """The step and text of each log that can be read from here; none unless an engine implements it."""
        return iter(())

    def list_run_kill_reasons(self, run: str) -> list[str]:
        """Distinct reasons why tasks of a run were killed, such as `OOMKilled`; none unless an engine implements it."""
        return []

    @abstractmethod
    def list_runs(self, *, limit: int = 20, schedule: str | None = None) -> Sequence[Run]:
        """The latest runs, newest first."""

    @abstractmethod
    def read_run(self, run: str) -> Run:
        """A run with its steps."""

    @abstractmethod
    def explain_failure(self, run: Run) -> RunFailedError:
        """Explain why a run from `read_run` failed or was aborted."""

    @abstractmethod
    def abort_run(self, run: str, reason: str) -> None:
        """Stop a run."""

    @abstractmethod
    def recover(self, run: str) -> Run:
        """Restart a failed run from its failed tasks."""

    @abstractmethod
    def list_schedules(self) -> Sequence[ScheduleState]:
        """The schedules that the app declares, and others that are still active."""

    @abstractmethod
    def deployed_schedules(self) -> Sequence[ScheduleState]:
        """The deployed schedules, active or not. Does not import the app."""

    @abstractmethod
    def switch_schedule(self, name: str, active: bool) -> ScheduleState:
        """Switch a schedule on or off."""

    @abstractmethod
    def list_versions(self) -> list[tuple[str, datetime]]:
        """The registered versions with their registration times, oldest first."""

    @abstractmethod
    def active_version(self) -> str | None:
        """The version that the active schedules run; None if none is active."""

    @abstractmethod
    def activate_version(self, version: str, progress: Reporter) -> list[str]:
        """Point the active schedules to another registered version; returns the names of those that changed."""

    @abstractmethod
    def deactivate_schedules(self) -> list[str]:
        """Switch all schedules off; returns the names of those that were on."""
