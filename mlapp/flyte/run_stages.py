"""The stages of a run: their phases, full errors, and the reasons why they have not started."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from flytekit.models.core.execution import NodeExecutionPhase
from flytekit.models.core.identifier import NodeExecutionIdentifier, WorkflowExecutionIdentifier

from mlapp.errors import UsageError
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError, RunFailedError
from mlapp.flyte.failures import explain_flyte_pull_failure, find_failed_stage
from mlapp.flyte.interface import Phase, Run, TaskRun
from mlapp.flyte.run_pods import PULL_ERROR, RunPods, describe_pod_reason
from mlapp.flyte.task_executions import TaskExecution, list_task_executions
from mlapp.flyte.task_specs import STEPS

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
LAST_STEPS: Mapping[str, str] = {
    "train": "save",
    "train_split": "save",
    "predict": "batch",
    "tune": "trial",
    "tune_split": "trial",
}
"""The last step of each of the app's workflows."""
WAITS_AFTER = 10.0
"""Seconds after which mlapp requests the reason why a task has not started."""


def list_run_stages(connection: Connection, run: str) -> tuple[TaskRun, ...]:
    """The stages of a run in order of their start, with their full errors.

    Raises:
        UsageError: the run does not exist.
    """
    nodes: list[Any] = []
    token = ""
    while True:
        with RunLookup(run):
            page, token = connection.call_client(
                connection.client.list_node_executions, make_run_execution_id(connection, run), limit=100, token=token
            )
        nodes += page
        if not token:
            break
    nodes = [node for node in nodes if node.id.node_id not in ("start-node", "end-node")]
    nodes.sort(key=lambda node: node.closure.created_at or datetime.now(timezone.utc))
    return tuple(
        stage for node in nodes for stage in _iterate_run_stages(node, _fetch_whole_stage_error(connection, node))
    )


def _fetch_whole_stage_error(connection: Connection, node: Any) -> str | None:
    """A node's error. Lists truncate it to 100 bytes, so it needs its own request."""
    if node.closure.error is None:
        return None
    full_node = connection.call_client(connection.client.get_node_execution, node.id)
    text = str((full_node.closure.error or node.closure.error).message)
    return text if find_failed_stage(text) or "Message:" in text else _add_run_stage_error(connection, node, text)


def _add_run_stage_error(connection: Connection, node: Any, text: str) -> str:
    """A node's error, extended by the error of its task's last attempt if it does not contain that."""
    for execution in list_task_executions(connection, node.id)[-1:]:
        task = connection.call_client(connection.client.get_task_execution, execution.id)
        message = task.closure.error.message if task.closure.error else execution.reason
        if message and message not in text:
            text = f"{message}\n{text}" if PULL_ERROR.search(message) else f"{text}\n{message}"
    return text


def _iterate_run_stages(node: Any, error: str | None) -> Iterator[TaskRun]:
    """The stages of a node: a fused task has several, and its error names the one that failed."""
    closure = node.closure
    task = closure.task_node_metadata
    phase = NODE_PHASES.get(closure.phase, "running")
    names = split_run_stage_names(node.id.node_id)
    failed_stage = find_failed_stage(error) or names[0]
    is_failed = phase in ("failed", "aborted")
    for index, name in enumerate(names):
        is_after = is_failed and failed_stage in names and index > names.index(failed_stage)
        is_before = is_failed and failed_stage in names and index < names.index(failed_stage)
        is_timed = name == failed_stage if is_failed else index == len(names) - 1
        yield TaskRun(
            name=name,
            phase="queued" if is_after else "succeeded" if is_before else phase,
            started=closure.started_at or None,
            seconds=closure.duration.total_seconds() if closure.duration and is_timed else None,
            error=error if name == failed_stage or not is_failed else None,
            cached=bool(task is not None and getattr(task, "cache_status", 0) == 2),
            node=node.id.node_id,
        )


def split_run_stage_names(node: str) -> list[str]:
    """Split `train-evaluate-save` into three stages; a name that does not consist of stages stays whole."""
    names = node.split("-")
    return names if len(names) > 1 and all(name in STEPS for name in names) else [node]


def is_last_stage_done(run: Run) -> bool:
    """Whether the last step of one of the app's workflows has succeeded, so that only the run's end is missing."""
    last_step = LAST_STEPS.get(run.workflow.rpartition(".")[2])
    return any(stage.name == last_step and stage.phase == "succeeded" for stage in run.steps)


def has_no_running_stage(run: Run) -> bool:
    """Whether no known stage is running. More stages can follow."""
    phases = {stage.phase for stage in run.steps}
    return not phases or bool(phases & {"failed", "aborted"}) or phases == {"succeeded"}


class WaitingReasons:
    """The reasons why tasks have not started: a node is RUNNING before its pod starts. One request covers one task."""

    def __init__(self, connection: Connection, run: str) -> None:
        self._connection = connection
        self._run = run
        self._reasons: dict[str, str] = {}
        self._started_nodes: set[str] = set()
        self._last = ""

    def next_node(self, run: Run) -> str | None:
        """A node that has been running for a while without a known start; alternates between several."""
        now = datetime.now(timezone.utc)
        nodes = list(
            dict.fromkeys(
                stage.node
                for stage in run.steps
                if stage.phase == "running"
                and stage.node not in self._started_nodes
                and stage.started is not None
                and (now - stage.started).total_seconds() >= WAITS_AFTER
            )
        )
        if not nodes:
            return None
        return nodes[(nodes.index(self._last) + 1) % len(nodes)] if self._last in nodes else nodes[0]

    def request_reason(self, node: str) -> None:
        """Request one node's reason."""
        self._last = node
        executions = list_task_executions(
            self._connection, NodeExecutionIdentifier(node, make_run_execution_id(self._connection, self._run))
        )
        self._reasons.pop(node, None)
        if not executions:
            return
        if not executions[-1].is_waiting:
            self._started_nodes.add(node)
        elif reason := self._find_stage_reason(node, executions[-1]):
            self._reasons[node] = describe_pod_reason(reason)

    def _find_stage_reason(self, node: str, execution: TaskExecution) -> str:
        """The reason from Flyte; for a map task, which has none, from its pods if a kubeconfig gives access to them."""
        if not execution.runs:
            return execution.reason
        pods = RunPods.connect(self._connection.settings)
        reasons = (pod.waits_for for pod in pods.list_pods(self._run) if pod.is_of(node)) if pods else iter(())
        reason = next(filter(None, reasons), "")
        return f"none of its {len(execution.runs)} runs has started{f': {reason}' if reason else ''}"

    def add_reasons(self, run: Run) -> Run:
        """The run with the known reasons of its waiting tasks."""
        stages = (
            dataclasses.replace(stage, waits_for=self._reasons.get(stage.node) if stage.phase == "running" else None)
            for stage in run.steps
        )
        return dataclasses.replace(run, steps=tuple(stages))


def refuse_unpullable_run_stage(run: Run) -> None:
    """Raise an error for an image that can never be pulled, instead of waiting."""
    for stage in run.steps:
        error = explain_flyte_pull_failure(f"Task {stage.name}", stage.waits_for or "")
        if error is not None:
            raise RunFailedError(error.what, f"{error.todo} Then stop this run: mlapp runs abort {run.id}")


def make_run_execution_id(connection: Connection, run: str) -> WorkflowExecutionIdentifier:
    return WorkflowExecutionIdentifier(*read_run_project_and_domain(connection), run)


def read_run_project_and_domain(connection: Connection) -> tuple[str, str]:
    return connection.settings.project, connection.settings.domain


class RunLookup:
    """Turns Flyte's NOT_FOUND error for a run into a UsageError."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FlyteError) and "NOT_FOUND" in error.what:
            raise UsageError(f"There is no run '{self._run}'.", "See `mlapp runs list`.") from error
