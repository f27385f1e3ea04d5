"""The task executions of a node: the only place where Flyte says why a pod has not started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyteidl.admin import task_execution_pb2
from flytekit.clients.raw import RawSynchronousFlyteClient
from flytekit.models.core.execution import TaskExecutionPhase
from flytekit.models.core.identifier import NodeExecutionIdentifier, TaskExecutionIdentifier

from mlapp.flyte.connection import Connection

WAITING_PHASES = frozenset({TaskExecutionPhase.UNDEFINED, TaskExecutionPhase.QUEUED, 7, 8})
"""Phases in which no code of the user runs yet. 7 is INITIALIZING and 8 WAITING_FOR_RESOURCES, which flytekit's
enumeration lacks (flyteidl/core/execution.proto, TaskExecution.Phase)."""
MOST = 100
"""Attempts and trials of one node that are looked at."""


@dataclass(frozen=True)
class TaskExecution:
    """One attempt of a task: its phase by flyteidl's numbers, and the cluster's reason for it."""

    id: TaskExecutionIdentifier
    phase: int
    reason: str


def list_task_executions(connection: Connection, node: NodeExecutionIdentifier) -> list[TaskExecution]:
    """The attempts of a node's task, in their order. flytekit's own model drops the reason."""
    request = task_execution_pb2.TaskExecutionListRequest(node_execution_id=node.to_flyte_idl(), limit=MOST)
    page: Any = connection.call_client(
        RawSynchronousFlyteClient.list_task_executions_paginated, connection.client, request
    )
    return [
        TaskExecution(
            TaskExecutionIdentifier.from_flyte_idl(execution.id),
            execution.closure.phase,
            execution.closure.reason or (execution.closure.reasons[-1].message if execution.closure.reasons else ""),
        )
        for execution in page.task_executions
    ]
