"""Resources of a stage that runs on a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from mlapp.errors import DeclarationError, suggest_nearest

QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?")
"""The common forms of a Kubernetes quantity: cores and bytes."""


@dataclass(frozen=True)
class Resources:
    """Resources of one task on a cluster. `cpu` in cores, `memory` and `disk` as Kubernetes quantities (`8Gi`).

    Raises:
        DeclarationError: a quantity that Kubernetes refuses.
    """

    cpu: float | str | None = None
    memory: str | None = None
    gpu: int | None = None
    disk: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("cpu", self.cpu), ("memory", self.memory), ("disk", self.disk)):
            if value is not None and not QUANTITY.fullmatch(str(value)):
                raise DeclarationError(
                    f"Resources({name}={value!r}) is not a quantity.",
                    "Give cores, such as cpu=4 or cpu='500m'."
                    if name == "cpu"
                    else f"Give bytes, such as {name}='8Gi'.",
                )
        if self.gpu is not None and (not isinstance(self.gpu, int) or self.gpu < 0):
            raise DeclarationError(
                f"Resources(gpu={self.gpu!r}) is not a number of GPUs.", "Give a whole number, such as gpu=1."
            )


@dataclass(frozen=True)
class Task:
    """How a stage runs as a separate task. A run in this process ignores it.

    Args:
        cache: reuse the result of an earlier run with the same inputs and the same code.
        retries: number of retries after a failure.
        timeout: in seconds.
        secrets: each `GROUP/KEY`, or one name for both.

    Raises:
        DeclarationError: a value that every cluster refuses.
    """

    resources: Resources | None = None
    cache: bool = False
    retries: int = 0
    timeout: float | None = None
    secrets: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.retries < 0 or (self.timeout is not None and self.timeout <= 0):
            raise DeclarationError(
                f"retries={self.retries}, timeout={self.timeout} is not valid.",
                "Give retries of 0 or more, and a timeout above 0.",
            )
        if isinstance(self.secrets, str):
            raise DeclarationError(
                f"secrets={self.secrets!r} is a string.", f"Give a list: secrets=[{self.secrets!r}]."
            )
        object.__setattr__(self, "secrets", tuple(self.secrets))


class TaskArguments(TypedDict, total=False):
    """The fields of `Task`, as a decorator takes them."""

    resources: Resources | None
    cache: bool
    retries: int
    timeout: float | None
    secrets: Sequence[str]


def make_stage_task(role: str, options: Mapping[str, Any]) -> Task:
    """How a stage runs, from the options of its decorator.

    Raises:
        DeclarationError: an unknown option.
    """
    known = {field.name for field in fields(Task)}
    for name, value in options.items():
        if name in {field.name for field in fields(Resources)}:
            raise DeclarationError(
                f"@app.{role} has no option '{name}'.", f"Write @app.{role}(resources=Resources({name}={value!r}))."
            )
        if name not in known:
            raise DeclarationError(
                f"@app.{role} has no option '{name}'.{suggest_nearest(name, known)}",
                f"Known: {', '.join(sorted(known))}.",
            )
    return Task(**options)


def merge_stage_tasks(tasks: Sequence[Task]) -> Task:
    """How several stages run as one task.

    The first stage decides the caching, as the others run inside of it. Resources and timeout are those of the
    first stage that has any, retries the maximum, secrets those of all stages.
    """
    if not tasks:
        return Task()
    return Task(
        resources=next((task.resources for task in tasks if task.resources is not None), None),
        cache=tasks[0].cache,
        retries=max(task.retries for task in tasks),
        timeout=next((task.timeout for task in tasks if task.timeout is not None), None),
        secrets=tuple(dict.fromkeys(secret for task in tasks for secret in task.secrets)),
    )
