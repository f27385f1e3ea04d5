"""Runs on Flyte: start, follow, list, stop, and explain failures."""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, get_args

from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.models import filters
from flytekit.models.core.execution import WorkflowExecutionPhase
from flytekit.models.core.identifier import Identifier, NodeExecutionIdentifier, ResourceType
from flytekit.models.execution import ExecutionMetadata, ExecutionSpec, NotificationList
from flytekit.models.literals import LiteralMap

from mlapp.errors import UsageError
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError, UnreachableError
from mlapp.flyte.failures import explain_failure
from mlapp.flyte.interface import Phase, Run, TaskRun, Workflow
from mlapp.flyte.run_stages import (
    RunLookup,
    WaitingReasons,
    has_no_running_stage,
    is_last_stage_done,
    list_run_stages,
    make_run_execution_id,
    read_run_project_and_domain,
    refuse_unpullable_run_stage,
    split_run_stage_names,
)
from mlapp.flyte.schedules import NEWEST
from mlapp.flyte.task_executions import list_task_executions
from mlapp.reporting import Reporter

WORKFLOWS = get_args(Workflow)
RUN_ID = re.compile(r"[a-z][a-z0-9-]{0,19}", re.ASCII)
PAUSE = 2.0
"""Minimum seconds between two calls while a run is followed."""
MAX_PAUSE = 10.0
PATIENCE = 600.0
"""Seconds for which a lost connection is retried."""
WORKFLOW_PHASES: Mapping[int, Phase] = {
    WorkflowExecutionPhase.UNDEFINED: "queued",
    WorkflowExecutionPhase.QUEUED: "queued",
    WorkflowExecutionPhase.RUNNING: "running",
    WorkflowExecutionPhase.SUCCEEDING: "running",
    WorkflowExecutionPhase.SUCCEEDED: "succeeded",
    WorkflowExecutionPhase.FAILING: "running",
    WorkflowExecutionPhase.FAILED: "failed",
    WorkflowExecutionPhase.ABORTED: "aborted",
    WorkflowExecutionPhase.TIMED_OUT: "failed",
    WorkflowExecutionPhase.ABORTING: "running",
}


def start_run(
    connection: Connection,
    plan: str,
    version: str,
    values: Mapping[str, Any],
    kinds: Mapping[str, Any],
    *,
    at_once: int | None = None,
    run_id: str | None = None,
) -> str:
    """Start a launch plan; returns the run's ID.

    Args:
        values: literals, or Python values of `kinds`.
        at_once: maximum number of concurrent tasks.
        run_id: the run's ID; None for a new one. If a run with this ID exists, no second run is started.

    Raises:
        UsageError: Flyte permits no such ID.
    """
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise UsageError(
            f"'{run_id}' cannot be the ID of a run.",
            "Use a letter and up to 19 lowercase letters, digits and hyphens.",
        )
    project_and_domain = read_run_project_and_domain(connection)
    literals = TypeEngine.dict_to_literal_map(
        FlyteContextManager.current_context(), {name: values[name] for name in values if name in kinds}, dict(kinds)
    ).literals
    literals.update({name: value for name, value in values.items() if name not in kinds})
    name = run_id or f"f{uuid.uuid4().hex[:19]}"
    spec = ExecutionSpec(
        Identifier(ResourceType.LAUNCH_PLAN, *project_and_domain, plan, version),
        ExecutionMetadata(ExecutionMetadata.ExecutionMode.MANUAL, "mlapp", 0),
        notifications=NotificationList([]),
        max_parallelism=at_once,
    )
    for is_last in (False, False, True):
        try:
            connection.call_client(
                connection.client.create_execution, *project_and_domain, name, spec, LiteralMap(literals)
            )
            break
        except UnreachableError as error:
            # A retry starts no second run, because the name is the same.
            if is_last:
                raise UnreachableError(error.what, "The run may have started anyway: see mlapp runs list") from error
            time.sleep(PAUSE)
        except FlyteError as error:
            if "ALREADY_EXISTS" not in error.what:  # the response to an earlier attempt was lost
                raise
            break
    return name


def follow_run(
    connection: Connection,
    run: str,
    on_change: Callable[[Run], None],
    *,
    progress: Reporter = lambda text: None,
    pause: float = PAUSE,
) -> Run:
    """Follow a run to its end, with at most one call every `pause` seconds. A lost connection is retried.

    Raises:
        RunFailedError: it failed or was aborted. UnreachableError: no answer for ten minutes. UsageError: no such run.
    """
    start = time.monotonic()
    disconnected_at: float | None = None
    reported_run = None
    poll = _RunPoll(connection, run)
    while True:
        try:
            current = poll.request_next()
        except UnreachableError as error:
            if disconnected_at is None:
                disconnected_at = time.monotonic()
                progress("Flyte does not answer; the run continues, and mlapp tries again")
            if time.monotonic() - disconnected_at > PATIENCE:
                raise UnreachableError(
                    error.what, f"The run continues. Follow it again: mlapp runs wait {run}"
                ) from error
        else:
            if disconnected_at is not None:
                progress("Flyte answers again")
                disconnected_at = None
            if current.is_over and not _has_only_ended_tasks(current):
                time.sleep(pause)
                with suppress(UnreachableError):  # the run's result is known; missing task updates are no error
                    current = poll.request_tasks(current)
            if current != reported_run:
                on_change(current)
                reported_run = current
            if current.is_over:
                break
            refuse_unpullable_run_stage(current)
        # The pause starts after the response, so it does not depend on the duration of the call.
        time.sleep(min(MAX_PAUSE, pause + (time.monotonic() - start) / 60))
    if current.phase != "succeeded":
        raise explain_failure(current)
    return current


class _RunPoll:
    """Requests a run's state with one call at a time: for the run, for its tasks, or for why one task waits."""

    def __init__(self, connection: Connection, run: str) -> None:
        self._connection, self._id = connection, run
        self._waiting = WaitingReasons(connection, run)
        self._current: Run | None = None
        self._needs_run, self._has_requested_reason = True, False

    def request_next(self) -> Run:
        """The run after one more call."""
        current = self._current
        if current is None or self._needs_run:
            self._has_requested_reason = False
            execution = _get_run_execution(self._connection, self._id)
            known_tasks = () if current is None else current.steps
            current = _add_task_runs_to_run(_make_run_from_execution(self._connection, execution), known_tasks)
        else:
            node = None if self._has_requested_reason else self._waiting.next_node(current)
            self._has_requested_reason = node is not None
            if node is None:
                current = self.request_tasks(current)
            else:
                self._waiting.request_reason(node)
        current = self._current = self._waiting.add_reasons(current)
        # One call returns all tasks. The run itself is only requested once they look finished.
        self._needs_run = is_last_stage_done(current) or (not self._needs_run and has_no_running_stage(current))
        return current

    def request_tasks(self, run: Run) -> Run:
        """The run with its tasks after one more call."""
        return _add_task_runs_to_run(run, list_run_stages(self._connection, self._id))


def _has_only_ended_tasks(run: Run) -> bool:
    return bool(run.steps) and all(task.phase not in ("queued", "running") for task in run.steps)


def recover_run(connection: Connection, run: str) -> str:
    """Restart a failed run from its failed tasks; returns the new run's ID.

    Raises:
        UsageError: the run does not exist, or has not ended. FlyteError: Flyte refused.
    """
    with RunLookup(run):
        current = _make_run_from_execution(connection, _get_run_execution(connection, run))
    if not current.is_over:
        raise UsageError(f"Run {run} has not ended: it is {current.phase}.", f"Follow it: mlapp runs wait {run}")
    if current.phase == "succeeded":
        raise UsageError(f"Run {run} succeeded: there is nothing to recover.", f"See {current.url}")
    name = f"f{uuid.uuid4().hex[:19]}"
    connection.call_client(connection.client.recover_execution, make_run_execution_id(connection, run), name)
    return name


def read_run(connection: Connection, run: str) -> Run:
    """A run with its steps.

    Raises:
        UsageError: the run does not exist.
    """
    current = _add_task_runs_to_run(
        _make_run_from_execution(connection, _get_run_execution(connection, run)), list_run_stages(connection, run)
    )
    waiting = WaitingReasons(connection, run)
    for node in dict.fromkeys(step.node for step in current.steps if step.phase == "running"):
        waiting.request_reason(node)
    return waiting.add_reasons(current)


def list_recent_runs(connection: Connection, app: str, *, limit: int, schedule: str | None = None) -> list[Run]:
    """The latest runs of the app, or of one of its schedules, newest first.

    Raises:
        FlyteError: Flyte has no such project or domain.
    """
    name_filter = (
        filters.ValueIn("launch_plan.name", [f"{app}.train.{schedule}", f"{app}.predict.{schedule}"])
        if schedule
        else filters.ValueIn("workflow.name", [f"{app}.{workflow}" for workflow in WORKFLOWS])
    )
    executions, _ = connection.call_client(
        connection.client.list_executions_paginated,
        *read_run_project_and_domain(connection),
        limit=limit,
        filters=[name_filter],
        sort_by=NEWEST,
    )
    if not executions:
        connection.check_project()
    return [_make_run_from_execution(connection, execution) for execution in executions]


def abort_run(connection: Connection, run: str, reason: str) -> None:
    """Stop a run.

    Raises:
        UsageError: the run does not exist, or has ended.
    """
    with RunLookup(run):
        try:
            connection.call_client(
                connection.client.terminate_execution, make_run_execution_id(connection, run), reason
            )
        except FlyteError as error:
            if "FAILED_PRECONDITION" not in error.what:
                raise
            current = _make_run_from_execution(connection, _get_run_execution(connection, run))
            end = "was aborted" if current.phase == "aborted" else current.phase
            raise UsageError(f"Run {run} has already ended: it {end}.", f"See {current.url}") from error


def list_logs(connection: Connection, run: str) -> list[tuple[str, str]]:
    """The step and link of each log. Flyte keeps only links; the cluster keeps the logs.

    Raises:
        UsageError: the run does not exist.
    """
    logs = []
    stages = list_run_stages(connection, run)
    if not stages:  # for an unknown run, Flyte returns an empty list
        _get_run_execution(connection, run)
    for node in dict.fromkeys(step.node for step in stages):
        node_id = NodeExecutionIdentifier(node, make_run_execution_id(connection, run))
        name = " + ".join(split_run_stage_names(node))
        logs += [(name, link) for execution in list_task_executions(connection, node_id) for link in execution.logs]
    return logs


def _add_task_runs_to_run(run: Run, steps: tuple[TaskRun, ...]) -> Run:
    return dataclasses.replace(run, steps=steps or run.steps)


def _make_run_from_execution(connection: Connection, execution: Any) -> Run:
    closure, plan = execution.closure, execution.spec.launch_plan
    # A schedule's plan is named after its workflow: <app>.train.<schedule>, <app>.predict.<schedule>.
    workflow_name, _, last_part = plan.name.rpartition(".")
    is_schedule = last_part not in WORKFLOWS
    return Run(
        id=execution.id.name,
        workflow=workflow_name if is_schedule else plan.name,
        version=plan.version,
        phase=WORKFLOW_PHASES.get(closure.phase, "running"),
        url=connection.console_url(execution.id.name),
        started=closure.started_at or None,
        seconds=closure.duration.total_seconds() if closure.duration else None,
        error=closure.error.message if closure.error else getattr(closure.abort_metadata, "cause", None),
        schedule=last_part if is_schedule else None,
    )


def _get_run_execution(connection: Connection, run: str) -> Any:
    with RunLookup(run):
        return connection.call_client(connection.client.get_execution, make_run_execution_id(connection, run))
