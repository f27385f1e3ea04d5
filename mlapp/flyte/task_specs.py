"""Which of the user's stages meet in a task: what it takes as inputs, how it runs, and what its result depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.resources import Task, merge_tasks


@dataclass(frozen=True)
class TaskSpec:
    """One task.

    Args:
        takes: the stages whose parameters are its inputs.
        declares: the stages that say how it runs; the first of them that the app has says whether it is cached.
        runs: the stages beside those of `takes` that run in it, or whose options it depends on.
        like: the task that holds the same data; one that declares no resources gets those of that one.
    """

    takes: tuple[str, ...]
    declares: tuple[str, ...]
    runs: tuple[str, ...] = ()
    like: str | None = None
    is_cached: bool = True


READING = ("data_reader", "data_loader")
FITTING = ("model", "data_parser", "feature_transformer", "trainer")
EVALUATING = ("model", "data_parser", "feature_transformer", "evaluator")
STEPS: Mapping[str, TaskSpec] = {
    "read": TaskSpec(READING, READING),
    "split": TaskSpec(("data_splitter",), ("data_splitter",), like="read"),
    "train": TaskSpec(
        FITTING,
        ("trainer", "model", "data_parser", "feature_transformer"),
        ("predictor", "saver"),  # a few predictions tell their schema
    ),
    "evaluate": TaskSpec(EVALUATING, ("evaluator", "data_parser", "feature_transformer"), ("loader",), like="train"),
    # Each run makes a version of its own, so that saving is done again whatever was there.
    "save": TaskSpec((*READING, "data_splitter", *FITTING, "evaluator"), ("saver",), like="train", is_cached=False),
    "batch": TaskSpec(
        (*READING, "data_parser"),
        ("predictor", *READING, "feature_transformer"),
        ("feature_transformer", "predictor", "on_predict", "model", "loader"),
    ),
    "monitor": TaskSpec((), ("evaluator",), is_cached=False),
    "data": TaskSpec((*READING, "data_splitter"), (*READING, "data_splitter")),
    "trial": TaskSpec((*FITTING, "evaluator"), ("trainer", "model", "data_parser", "feature_transformer", "evaluator")),
}


def make_task_options(pipeline: Pipeline, name: str) -> Task:
    """How a task runs, as its stages declare it. One that declares no resources gets those of the task that holds the
    same data, without its GPU.
    """
    step = STEPS[name]
    own = merge_tasks(
        [stage.options.task for stage in _select_stages(pipeline, step.declares) if stage.options.task is not None]
    )
    if not step.is_cached:
        own = dataclasses.replace(own, cache=False)
    resources = make_task_options(pipeline, step.like).resources if own.resources is None and step.like else None
    return own if resources is None else dataclasses.replace(own, resources=dataclasses.replace(resources, gpu=None))


def list_running_stages(pipeline: Pipeline, name: str) -> list[Stage]:
    """The user's stages that run in a task."""
    return _select_stages(pipeline, dict.fromkeys((*STEPS[name].takes, *STEPS[name].runs)))


def _select_stages(pipeline: Pipeline, roles: Iterable[str]) -> list[Stage]:
    return [stage for role in roles if (stage := pipeline.stage(role))]
