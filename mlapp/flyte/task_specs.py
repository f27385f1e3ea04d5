"""The user's stages of each task. They determine its inputs, options, resources and cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.stage_tasks import Resources, Task, merge_stage_tasks

CPU = 1
GIB = 1024**3
CELL = 8 * 8
"""Bytes of memory per cell of the data: eight for a number, times eight for copies in the steps."""


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Args:
        takes: the stages whose parameters are the task's inputs.
        declares: the stages that declare its options. The first of them in the app determines whether it is cached.
        runs: further stages that run in it, or whose options it depends on.
        like: a task with the same data; its resources are the default for this task.
    """

    takes: tuple[str, ...]
    declares: tuple[str, ...]
    runs: tuple[str, ...] = ()
    like: str | None = None
    is_cached: bool = True


READER_STAGES = ("data_reader", "data_loader")
FITTING = ("model", "data_parser", "feature_transformer", "trainer")
EVALUATING = ("model", "data_parser", "feature_transformer", "evaluator")
STEPS: Mapping[str, TaskSpec] = {
    "read": TaskSpec(READER_STAGES, READER_STAGES),
    "split": TaskSpec(("data_splitter",), ("data_splitter",), like="read"),
    "train": TaskSpec(
        FITTING,
        ("trainer", "model", "data_parser", "feature_transformer"),
        ("predictor", "saver"),  # a few predictions determine their schema
    ),
    "evaluate": TaskSpec(EVALUATING, ("evaluator", "data_parser", "feature_transformer"), ("loader",), like="train"),
    # Each run creates its own version, so saving is never cached.
    "save": TaskSpec(
        (*READER_STAGES, "data_splitter", *FITTING, "evaluator"), ("saver",), like="train", is_cached=False
    ),
    "batch": TaskSpec(
        (*READER_STAGES, "data_parser"),
        ("predictor", *READER_STAGES, "feature_transformer"),
        ("feature_transformer", "predictor", "on_predict", "model", "loader"),
    ),
    "monitor": TaskSpec((), ("evaluator",), is_cached=False),
    "data": TaskSpec((*READER_STAGES, "data_splitter"), (*READER_STAGES, "data_splitter")),
    "trial": TaskSpec((*FITTING, "evaluator"), ("trainer", "model", "data_parser", "feature_transformer", "evaluator")),
}


def make_task_spec_options(pipeline: Pipeline, name: str) -> Task:
    """The task options that its stages declare. The default resources are those of the task with the same data,
    without its GPU.
    """
    step = STEPS[name]
    options = merge_stage_tasks(
        [
            stage.options.task
            for stage in _select_task_spec_stages(pipeline, step.declares)
            if stage.options.task is not None
        ]
    )
    if not step.is_cached:
        options = dataclasses.replace(options, cache=False)
    resources = (
        make_task_spec_options(pipeline, step.like).resources if options.resources is None and step.like else None
    )
    return (
        options
        if resources is None
        else dataclasses.replace(options, resources=dataclasses.replace(resources, gpu=None))
    )


def list_task_spec_stages(pipeline: Pipeline, name: str) -> list[Stage]:
    """The user's stages that run in a task."""
    return _select_task_spec_stages(pipeline, dict.fromkeys((*STEPS[name].takes, *STEPS[name].runs)))


def _select_task_spec_stages(pipeline: Pipeline, roles: Iterable[str]) -> list[Stage]:
    return [stage for role in roles if (stage := pipeline.stage(role))]


def choose_default_resources(declared: Resources | None, size: int | None) -> Resources:
    """The declared resources, or by default 1 CPU and memory by the size of the data.

    Args:
        size: rows × columns of the latest version's data; None, for 1 GiB, if there is no version.
    """
    declared = declared or Resources()
    return dataclasses.replace(
        declared, cpu=declared.cpu or CPU, memory=declared.memory or f"{_estimate_default_memory(size or 0)}Gi"
    )


def _estimate_default_memory(size: int) -> int:
    gibibytes = 1
    while gibibytes * GIB < size * CELL:
        gibibytes *= 2
    return gibibytes
