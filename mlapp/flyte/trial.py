"""The body of a task that runs one trial of a search. Independent of Flyte."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import MlappError
from mlapp.flyte import data_folder
from mlapp.flyte.interface import TrialResult
from mlapp.flyte.task_bodies import Bound
from mlapp.flyte.task_errors import format_task_trace, shorten_task_paths
from mlapp.pipeline import Pipeline
from mlapp.tuning import TrialEvaluator


class Trial(msgspec.Struct, frozen=True):
    """Parameters to try, by full name, and the folds and seed of the cross-validation."""

    parameters: dict[str, Any]
    folds: int
    seed: int


def run_trial_step(pipeline: Pipeline, bound: Bound, splits: Path, text: str) -> str:
    """The metrics of one trial on the first split, as means over the folds; or its error.

    Args:
        text: a `Trial` as JSON. Its parameters override `bound`.

    Returns:
        A `TrialResult` as JSON.
    """
    trial = msgspec.json.decode(text, type=Trial)
    fixed = {f"{stage}.{name}": value for stage, stage_values in bound.items() for name, value in stage_values.items()}
    first = data_folder.read_folder_value(splits, data_folder.open_folder_index(splits).names[0])
    evaluator = TrialEvaluator(pipeline, fixed, trial.folds, trial.seed, table=first)
    try:
        fold_metrics = list(evaluator.score_folds(trial.parameters, lambda fold, progress: None))
    except MlappError as error:
        lines = (shorten_task_paths(error.what), shorten_task_paths(error.todo))
        return msgspec.json.encode(TrialResult(error=lines, trace=format_task_trace(error))).decode()
    means = {name: statistics.fmean(metrics[name] for metrics in fold_metrics) for name in fold_metrics[0]}
    return msgspec.json.encode(TrialResult(metrics={**means})).decode()
