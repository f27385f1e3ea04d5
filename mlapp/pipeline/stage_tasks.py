"""Resources of a stage that runs on a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from mlapp.errors import DeclarationError, suggest_nearest
from mlapp.pipeline.option_checks import check_option, is_finite_number, is_whole_number

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
        has_resources = self.resources is None or isinstance(self.resources, Resources)
        check_option(has_resources, "resources=…", self.resources, "resources=Resources(cpu=4, memory='8Gi')")
        check_option(isinstance(self.cache, bool), "cache=…", self.cache, "True or False")
        check_option(is_whole_number(self.retries, 0), "retries=…", self.retries, "a whole number, 0 or more")
        is_time = self.timeout is None or (is_finite_number(self.timeout) and self.timeout > 0)
        check_option(is_time, "timeout=…", self.timeout, "seconds, more than 0")
        are_names = isinstance(self.secrets, Sequence) and not isinstance(self.secrets, str)
        are_names = are_names and all(isinstance(secret, str) for secret in self.secrets)
        check_option(are_names, "secrets=…", self.secrets, "a list of names, such as secrets=['GROUP/KEY']")
        object.__setattr__(self, "secrets", tuple(self.secrets))


class TaskArguments(TypedDict, total=False):
    """The fields of `Task`, as a decorator takes them."""

    resources: Resources | None
    cache: bool
    retries: int
    timeout: float | None
    secrets: Sequence[str]


def make_stage_task(role: str, options: Mapping[str, Any], own: Sequence[str] = ()) -> Task:
    """How a stage runs, from the options of its decorator.

    Args:
        own: the decorator's other options, to suggest and list them.

    Raises:
        DeclarationError: an unknown option, or a value that every cluster refuses.
    """
    known = {*own, *(field.name for field in fields(Task))}
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
    try:
        return Task(**options)
    except DeclarationError as error:
        raise DeclarationError(f"@app.{role}: {error.what}", error.todo) from None


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
