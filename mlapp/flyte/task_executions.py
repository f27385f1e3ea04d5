"""The attempts of a node's task. Only they have the log links, and the reason why a pod has not started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyteidl.admin import task_execution_pb2
from flyteidl.core import execution_pb2
from flytekit.clients.raw import RawSynchronousFlyteClient
from flytekit.models.core.identifier import NodeExecutionIdentifier, TaskExecutionIdentifier

from mlapp.flyte.connection import Connection

Phase = execution_pb2.TaskExecution
"""flytekit's enumeration lacks some of the phases."""
WAITING_PHASES = frozenset({Phase.UNDEFINED, Phase.QUEUED, Phase.INITIALIZING, Phase.WAITING_FOR_RESOURCES})
"""Phases before any user code runs. A pod that pulls its image is INITIALIZING."""
MAX_ATTEMPTS = 1000
"""Maximum number of attempts to read per node."""


@dataclass(frozen=True)
class TaskExecution:
    """One attempt of a task, or all runs of a map task.

    Attributes:
        phase: flyteidl's number.
        reason: the cluster's reason for the phase; a map task has none.
        logs: the links to its logs.
        runs: for a map task, the phases of its runs that have started.
    """

    id: TaskExecutionIdentifier
    phase: int
    reason: str
    logs: tuple[str, ...] = ()
    runs: tuple[int, ...] = ()

    @property
    def is_waiting(self) -> bool:
        """Whether none of its pods has started."""
        return self.phase in WAITING_PHASES or bool(self.runs and WAITING_PHASES.issuperset(self.runs))


def list_task_executions(connection: Connection, node: NodeExecutionIdentifier) -> list[TaskExecution]:
    """The attempts of a node's task, from first to last. Flyte lists them in arbitrary order.

    Reads Flyte's own messages, because flytekit's model drops the reason.
    """
    request = task_execution_pb2.TaskExecutionListRequest(node_execution_id=node.to_flyte_idl(), limit=MAX_ATTEMPTS)
    page: Any = connection.call_client(
        RawSynchronousFlyteClient.list_task_executions_paginated, connection.client, request
    )
    return [
        _read_task_execution(execution)
        for execution in sorted(page.task_executions, key=lambda execution: execution.id.retry_attempt)
    ]


def _read_task_execution(execution: Any) -> TaskExecution:
    closure = execution.closure
    runs = closure.metadata.external_resources
    logs = [log.uri for part in (closure, *runs) for log in part.logs]
    return TaskExecution(
        TaskExecutionIdentifier.from_flyte_idl(execution.id),
        closure.phase,
        closure.reason or (closure.reasons[-1].message if closure.reasons else ""),
        tuple(logs),
        tuple(run.phase for run in runs),
    )
