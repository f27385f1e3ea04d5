"""Group training steps into tasks. Starting a pod takes Flyte seconds, often more than a step's own work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mlapp.flyte.task_specs import STEPS, make_task_spec_options
from mlapp.pipeline import Pipeline
from mlapp.pipeline.stage_tasks import Task, merge_stage_tasks

TRAINING = ("read", "split", "train", "evaluate", "save")
"""The steps of `<app>.train`, in order."""
TAKES = {
    "read": (),
    "split": ("table",),
    "train": ("splits",),
    "evaluate": ("splits", "trained"),
    "save": ("trained", "metrics"),
}
"""The inputs of each step from earlier steps."""
GIVES = {"read": "table", "split": "splits", "train": "trained", "evaluate": "metrics", "save": "model"}
"""The outputs of each step."""
RESULTS = ("metrics", "model")
"""The outputs of the workflow."""


def fuse_steps(pipeline: Pipeline, *, separate: bool) -> list[tuple[str, ...]]:
    """The steps of each task of `<app>.train`, in order: `read` with `split`, and `train` with what follows it.

    A step whose stages declare resources, a cache, retries or a timeout gets its own task. If that leaves `split`
    without `read`, it joins the training.

    Args:
        separate: use one task per step (`flyte: {tasks: separate}`).
    """
    groups: list[list[str]] = []
    for step in TRAINING:
        joins = (
            groups
            and not separate
            and not _has_own_task(pipeline, step)
            and not _has_own_task(pipeline, groups[-1][-1])
            and (step != "train" or groups[-1] == ["split"])
        )
        if joins:
            groups[-1].append(step)
        else:
            groups.append([step])
    return [tuple(group) for group in groups]


def name_fused_task(steps: Sequence[str]) -> str:
    """The name of a task: `train-evaluate-save`. Flyte's node names allow no other separator."""
    return "-".join(steps)


def list_fused_outputs(steps: Sequence[str]) -> list[str]:
    """The outputs of a task: inputs of later tasks, and results of the workflow."""
    later = TRAINING[TRAINING.index(steps[-1]) + 1 :]
    wanted = {name for step in later for name in TAKES[step]} | set(RESULTS)
    return [GIVES[step] for step in steps if GIVES[step] in wanted]


def list_fused_inputs(steps: Sequence[str]) -> list[str]:
    """The inputs of a task from earlier tasks."""
    own = {GIVES[step] for step in steps}
    return list(dict.fromkeys(name for step in steps for name in TAKES[step] if name not in own))


def declare_fused_task(pipeline: Pipeline, steps: Sequence[str]) -> Task:
    """The task's declared options. Steps that share a task declare at most secrets."""
    return merge_stage_tasks([make_task_spec_options(pipeline, step) for step in steps])


def _has_own_task(pipeline: Pipeline, step: str) -> bool:
    stages = (pipeline.stage(role) for role in STEPS[step].declares)
    declared = [stage.options.task for stage in stages if stage and stage.options.task is not None]
    return any(dataclasses.replace(task, secrets=()) != Task() for task in declared)
