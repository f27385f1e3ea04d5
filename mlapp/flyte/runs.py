"""Runs on Flyte: start, follow, list, stop; and what a failed one says."""

from __future__ import annotations

import dataclasses
import re
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, get_args

from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.models import filters
from flytekit.models.core.execution import NodeExecutionPhase, WorkflowExecutionPhase
from flytekit.models.core.identifier import Identifier, ResourceType, WorkflowExecutionIdentifier
from flytekit.models.execution import ExecutionMetadata, ExecutionSpec, NotificationList
from flytekit.models.literals import LiteralMap

from mlapp.errors import UsageError
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError, RunFailedError, UnreachableError
from mlapp.flyte.interface import Phase, Run, TaskRun, Workflow
from mlapp.flyte.schedules import NEWEST

WORKFLOWS = get_args(Workflow)
PAUSE = 2.0
"""Seconds between two calls while a run is followed, at least."""
LONGEST_PAUSE = 10.0
PATIENCE = 600.0
"""Seconds for which a lost connection is tried again."""
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
NODE_PHASES: Mapping[int, Phase] = {
    NodeExecutionPhase.UNDEFINED: "queued",
    NodeExecutionPhase.QUEUED: "queued",
    NodeExecutionPhase.SUCCEEDED: "succeeded",
    NodeExecutionPhase.RECOVERED: "succeeded",
    NodeExecutionPhase.SKIPPED: "succeeded",
    NodeExecutionPhase.FAILED: "failed",
    NodeExecutionPhase.TIMED_OUT: "failed",
    NodeExecutionPhase.ABORTED: "aborted",
}
DECLARES = {
    "read": "data_reader",
    "split": "data_splitter",
    "evaluate": "evaluator",
    "data": "data_reader",
    "batch": "predictor",
}
"""The stage that says how a task runs, where it is not the trainer."""
FRAME_OF_OURS = "The above exception was the direct cause of the following exception"


def start_run(
    connection: Connection,
    plan: str,
    version: str,
    values: Mapping[str, Any],
    kinds: Mapping[str, Any],
    *,
    at_once: int | None = None,
) -> str:
    """Start a launch plan; returns the run's id.

    Args:
        values: literals, or Python values of `kinds`.
        at_once: how many of its tasks run at the same time, at most.
    """
    place = _project_and_domain(connection)
    literals = TypeEngine.dict_to_literal_map(
        FlyteContextManager.current_context(), {name: values[name] for name in values if name in kinds}, dict(kinds)
    ).literals
    literals.update({name: value for name, value in values.items() if name not in kinds})
    name = f"f{uuid.uuid4().hex[:19]}"
    spec = ExecutionSpec(
        Identifier(ResourceType.LAUNCH_PLAN, *place, plan, version),
        ExecutionMetadata(ExecutionMetadata.ExecutionMode.MANUAL, "mlapp", 0),
        notifications=NotificationList([]),
        max_parallelism=at_once,
    )
    for is_last in (False, False, True):
        try:
            connection.call_client(connection.client.create_execution, *place, name, spec, LiteralMap(literals))
            break
        except UnreachableError as error:
            # Asked again, it starts no second run: the name is the same.
            if is_last:
                raise UnreachableError(error.what, "It may have begun all the same: mlapp runs list") from error
            time.sleep(PAUSE)
        except FlyteError as error:
            if "ALREADY_EXISTS" not in error.what:  # an answer that was lost: it is this very one
                raise
            break
    return name


def follow_run(
    connection: Connection,
    run: str,
    tell: Callable[[Run], None],
    *,
    say: Callable[[str], None] = lambda text: None,
    pause: float = PAUSE,
) -> Run:
    """Follow a run to its end, with at most one call every `pause` seconds. A lost connection is tried again.

    Raises:
        RunFailedError: it failed or was aborted. UnreachableError: no answer for ten minutes. UsageError: no such run.
    """
    began = time.monotonic()
    lost: float | None = None
    current = last = None
    asks_run = True
    while True:
        try:
            if asks_run or current is None:
                current = _add_task_runs(
                    _make_run(connection, _get_execution(connection, run)), current.steps if current else ()
                )
            else:
                current = _add_task_runs(current, _read_task_runs(connection, run))
            if lost is not None:
                say("Flyte answers again")
            lost = None
        except UnreachableError as error:
            if lost is None:
                lost = time.monotonic()
                say("Flyte does not answer; the run goes on, and is asked for again")
            if time.monotonic() - lost > PATIENCE:
                raise UnreachableError(error.what, f"The run goes on. Come back: mlapp runs wait {run}") from error
        else:
            # The steps say most, and one call gets them all. The run itself is asked for when they look finished.
            asks_run = not asks_run and _looks_finished(current)
            if current.is_over:
                time.sleep(pause)
                with suppress(UnreachableError):  # how it ended is known; the tasks' last news are not worth an error
                    current = _add_task_runs(current, _read_task_runs(connection, run))
            if current != last:
                tell(current)
                last = current
            if current.is_over:
                break
        # From the answer on: however long that took, no two calls come to Flyte sooner after each other.
        time.sleep(min(LONGEST_PAUSE, pause + (time.monotonic() - began) / 60))
    if current.phase != "succeeded":
        raise explain_failure(current)
    return current


def read_run(connection: Connection, run: str) -> Run:
    """A run with its steps.

    Raises:
        UsageError: there is no such run.
    """
    return _add_task_runs(_make_run(connection, _get_execution(connection, run)), _read_task_runs(connection, run))


def list_recent_runs(connection: Connection, app: str, *, limit: int, schedule: str | None = None) -> list[Run]:
    """The latest runs of the app, or of one of its schedules, newest first."""
    wanted = (
        filters.ValueIn("launch_plan.name", [f"{app}.train.{schedule}", f"{app}.predict.{schedule}"])
        if schedule
        else filters.ValueIn("workflow.name", [f"{app}.{workflow}" for workflow in WORKFLOWS])
    )
    found, _ = connection.call_client(
        connection.client.list_executions_paginated,
        *_project_and_domain(connection),
        limit=limit,
        filters=[wanted],
        sort_by=NEWEST,
    )
    return [_make_run(connection, execution) for execution in found]


def abort_run(connection: Connection, run: str, reason: str) -> None:
    """Stop a run.

    Raises:
        UsageError: there is no such run.
    """
    with _unknown_run_errors(run):
        connection.call_client(connection.client.terminate_execution, _execution_identifier(connection, run), reason)


def list_logs(connection: Connection, run: str) -> list[tuple[str, str]]:
    """Where the logs of each step are, as step and link; Flyte keeps links, and the cluster the logs."""
    from flytekit.models.core.identifier import NodeExecutionIdentifier

    found = []
    for step in _read_task_runs(connection, run):
        node = NodeExecutionIdentifier(step.name, _execution_identifier(connection, run))
        executions, _ = connection.call_client(connection.client.list_task_executions_paginated, node)
        found += [(step.name, log.uri) for execution in executions for log in execution.closure.logs]
    return found


def explain_failure(run: Run) -> RunFailedError:
    """Why a run failed: the first step's error, with the user's own traceback."""
    if run.phase == "aborted":
        return RunFailedError(f"Run {run.id} was aborted{f': {run.error}' if run.error else '.'}", f"See {run.url}")
    step = next((step for step in run.steps if step.phase == "failed"), None)
    text = (step.error if step else None) or run.error or ""
    name = f"Task {step.name}" if step else f"Run {run.id}"
    is_out_of_memory = "OOMKilled" in text
    if is_out_of_memory or re.search(r"exit(ed with)? code:? \(?(137|247)|signal: killed", text):
        stage = DECLARES.get(step.name if step else "", "trainer")
        instead = ", or @app.model where the app has no trainer" if stage == "trainer" else ""
        return RunFailedError(
            f"{name} ran out of memory." if is_out_of_memory else f"{name} was killed, most often for want of memory.",
            f"Give it more: @app.{stage}(resources=Resources(memory='16Gi')){instead}. Then run it again.",
        )
    if re.search(r"ImagePullBackOff|ErrImagePull", text):
        return RunFailedError(
            f"{name}: the cluster cannot pull the image: {_last_line(text)}",
            "Check that it is pushed, and that the cluster has credentials for its registry.",
        )
    trace, message = _split_trace(text)
    what, _, todo = message.partition("\n")
    return RunFailedError(f"{name} failed: {what or 'no reason given'}", todo or f"See {run.url}", trace)


def _split_trace(text: str) -> tuple[str, str]:
    """The user's traceback, and the message, of what a task wrote when it failed."""
    found = re.search(r"Trace:\n\n(.*)\nMessage:\n\n(.*)", text, re.DOTALL)
    if found is None:
        return "", _last_line(text)
    trace = textwrap.dedent(found.group(1)).partition(FRAME_OF_OURS)[0].strip()
    message = textwrap.dedent(found.group(2)).strip()
    if "StageError: " not in message:
        return trace, message.splitlines()[0]
    message = message.partition("StageError: ")[2]
    return (trace if trace.startswith("Traceback") and "mlapp.flyte.tasks." not in trace else ""), message


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _looks_finished(run: Run) -> bool:
    phases = {step.phase for step in run.steps}
    return not phases or bool(phases & {"failed", "aborted"}) or phases == {"succeeded"}


def _add_task_runs(run: Run, steps: tuple[TaskRun, ...]) -> Run:
    return dataclasses.replace(run, steps=steps or run.steps)


def _read_task_runs(connection: Connection, run: str) -> tuple[TaskRun, ...]:
    with _unknown_run_errors(run):
        nodes, _ = connection.call_client(
            connection.client.list_node_executions, _execution_identifier(connection, run), limit=100
        )
    nodes = [node for node in nodes if node.id.node_id not in ("start-node", "end-node")]
    nodes.sort(key=lambda node: node.closure.created_at or datetime.now(timezone.utc))
    return tuple(_make_task_run(node) for node in nodes)


def _make_task_run(node: Any) -> TaskRun:
    closure = node.closure
    task = closure.task_node_metadata
    return TaskRun(
        name=node.id.node_id,
        phase=NODE_PHASES.get(closure.phase, "running"),
        started=closure.started_at or None,
        seconds=closure.duration.total_seconds() if closure.duration else None,
        error=closure.error.message if closure.error else None,
        cached=bool(task is not None and getattr(task, "cache_status", 0) == 2),
    )


def _make_run(connection: Connection, execution: Any) -> Run:
    closure, plan = execution.closure, execution.spec.launch_plan
    # A schedule's plan is called after its workflow: <app>.train.<schedule>, <app>.predict.<schedule>.
    before, _, last = plan.name.rpartition(".")
    is_schedule = last not in WORKFLOWS
    return Run(
        id=execution.id.name,
        workflow=before if is_schedule else plan.name,
        version=plan.version,
        phase=WORKFLOW_PHASES.get(closure.phase, "running"),
        url=connection.console_url(execution.id.name),
        started=closure.started_at or None,
        seconds=closure.duration.total_seconds() if closure.duration else None,
        error=closure.error.message if closure.error else getattr(closure.abort_metadata, "cause", None),
        schedule=last if is_schedule else None,
    )


def _get_execution(connection: Connection, run: str) -> Any:
    with _unknown_run_errors(run):
        return connection.call_client(connection.client.get_execution, _execution_identifier(connection, run))


def _execution_identifier(connection: Connection, run: str) -> WorkflowExecutionIdentifier:
    return WorkflowExecutionIdentifier(*_project_and_domain(connection), run)


def _project_and_domain(connection: Connection) -> tuple[str, str]:
    return connection.settings.project, connection.settings.domain


class _unknown_run_errors:
    """Tells a run that is not there from other refusals."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FlyteError) and "NOT_FOUND" in error.what:
            raise UsageError(f"There is no run '{self._run}'.", "See `mlapp runs list`.") from error
