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
        DeclarationError: a value is not a quantity in Kubernetes notation.
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
    """Settings of a stage that runs as a separate task on a cluster. Local runs ignore them.

    Args:
        cache: reuse the result of an earlier run with the same inputs and the same code.
        retries: number of retries after a failure.
        timeout: in seconds.
        secrets: each `GROUP/KEY`, or one name for both.

    Raises:
        DeclarationError: a value is not valid on any cluster.
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


def make_stage_task(role: str, options: Mapping[str, Any], other_options: Sequence[str] = ()) -> Task:
    """The task settings of a stage, from the options of its decorator.

    Args:
        other_options: names of the decorator's other options, for suggestions in errors.

    Raises:
        DeclarationError: an option is unknown, or a value is not valid on any cluster.
    """
    names = {*other_options, *(field.name for field in fields(Task))}
    for name, value in options.items():
        if name in {field.name for field in fields(Resources)}:
            raise DeclarationError(
                f"@app.{role} has no option '{name}'.", f"Write @app.{role}(resources=Resources({name}={value!r}))."
            )
        if name not in names:
            raise DeclarationError(
                f"@app.{role} has no option '{name}'.{suggest_nearest(name, names)}",
                f"Known: {', '.join(sorted(names))}.",
            )
    try:
        return Task(**options)
    except DeclarationError as error:
        raise DeclarationError(f"@app.{role}: {error.what}", error.todo) from None


def merge_stage_tasks(tasks: Sequence[Task]) -> Task:
    """The task settings of several stages that run as one task.

    The first stage decides about caching, because the others run inside it. Resources and timeout come from the first
    stage that has them; retries are the maximum of all stages, and secrets the union.
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
