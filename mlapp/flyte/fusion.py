"""Groups training steps into tasks: starting a pod takes seconds, often more than the step's own work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mlapp.flyte.task_specs import STEPS, make_task_spec_options
from mlapp.pipeline import Pipeline
from mlapp.pipeline.stage_tasks import Task, merge_stage_tasks

TRAINING = ("read", "split", "train", "evaluate", "save")
"""The steps of `<app>.train`, in order."""
STEP_INPUTS = {
    "read": (),
    "split": ("table",),
    "train": ("splits",),
    "evaluate": ("splits", "trained"),
    "save": ("trained", "metrics"),
}
"""By step: its inputs from earlier steps."""
STEP_OUTPUTS = {"read": "table", "split": "splits", "train": "trained", "evaluate": "metrics", "save": "model"}
"""By step: its output."""
RESULTS = ("metrics", "model")
"""The outputs of the workflow."""


def fuse_steps(pipeline: Pipeline, *, separate: bool) -> list[tuple[str, ...]]:
    """The steps of each task of `<app>.train`, in order: `read` with `split`, and `train` with the steps after it.

    A step whose stages declare resources, a cache, retries or a timeout gets its own task. If that leaves `split`
    without `read`, it joins the training.

    Args:
        separate: use one task per step (`flyte: {tasks: separate}`).
    """
    groups: list[list[str]] = []
    for step in TRAINING:
        joins_previous = (
            groups
            and not separate
            and not _has_own_task(pipeline, step)
            and not _has_own_task(pipeline, groups[-1][-1])
            and (step != "train" or groups[-1] == ["split"])
        )
        if joins_previous:
            groups[-1].append(step)
        else:
            groups.append([step])
    return [tuple(group) for group in groups]


def name_fused_task(steps: Sequence[str]) -> str:
    """The name of a task: `train-evaluate-save`. Flyte's node names allow no other separator."""
    return "-".join(steps)


def list_fused_outputs(steps: Sequence[str]) -> list[str]:
    """The outputs of a task: inputs of later tasks, and results of the workflow."""
    later_steps = TRAINING[TRAINING.index(steps[-1]) + 1 :]
    needed_names = {name for step in later_steps for name in STEP_INPUTS[step]} | set(RESULTS)
    return [STEP_OUTPUTS[step] for step in steps if STEP_OUTPUTS[step] in needed_names]


def list_fused_inputs(steps: Sequence[str]) -> list[str]:
    """The inputs of a task from earlier tasks."""
    own_outputs = {STEP_OUTPUTS[step] for step in steps}
    return list(dict.fromkeys(name for step in steps for name in STEP_INPUTS[step] if name not in own_outputs))


def declare_fused_task(pipeline: Pipeline, steps: Sequence[str]) -> Task:
    """The task's declared options. Steps that share a task declare at most secrets."""
    return merge_stage_tasks([make_task_spec_options(pipeline, step) for step in steps])


def _has_own_task(pipeline: Pipeline, step: str) -> bool:
    stages = (pipeline.stage(role) for role in STEPS[step].declares)
    tasks = [stage.options.task for stage in stages if stage and stage.options.task is not None]
    return any(dataclasses.replace(task, secrets=()) != Task() for task in tasks)
