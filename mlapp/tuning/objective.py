"""Evaluates the parameters of one trial by cross-validation on the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlapp import frameworks
from mlapp.errors import DataError, UsageError, suggest_nearest
from mlapp.pipeline import Pipeline
from mlapp.progress import Progress, listen_progress
from mlapp.training import defaults, stage_calls
from mlapp.training.binding import build_model_and_bind_parameters

READER_STAGES = ("data_reader", "data_loader", "data_splitter")
"""The stages that provide the training data."""
FoldReporter = Callable[[int, Progress], None]


class TrialEvaluator:
    """Reads the data once, and evaluates parameters on its training split. Never uses the test split.

    Args:
        fixed: parameters that all trials share.
        folds: number of folds of the cross-validation.
        table: the training split; by default, the reader and the splitter provide it.
    """

    def __init__(
        self, pipeline: Pipeline, fixed: Mapping[str, Any], folds: int, seed: int, *, table: Any = None
    ) -> None:
        self.pipeline, self.fixed, self.folds, self.seed = pipeline, fixed, folds, seed
        self._table: Any = table
        self._cached_split: Any = None

    def score_folds(self, parameters: Mapping[str, Any], report_progress: FoldReporter) -> Iterator[dict[str, float]]:
        """The metrics of each fold in turn.

        Args:
            parameters: the trial's parameters, by name or full name.
            report_progress: receives the trainer's reports, with the number of the fold.

        Raises:
            MlappError: the pipeline fails with these parameters.
        """
        values = {**self.fixed, **parameters}
        _, framework, bound = build_model_and_bind_parameters(self.pipeline, values)
        trainer = stage_calls.select_trainer(self.pipeline, framework)
        table = self._read_objective_split(bound)
        for number, (training_rows, held_out_rows) in enumerate(
            _make_objective_folds(table, self.pipeline.targets, self.folds, self.seed)
        ):
            model = stage_calls.call_builder(self.pipeline, bound.get("model", {}))
            features, target = self._parse_objective_part(table.iloc[training_rows], bound)
            with listen_progress(lambda progress, fold=number: report_progress(fold, progress)):  # type: ignore[misc]
                estimator = stage_calls.call_trainer(trainer, model, features, target, bound.get("trainer", {}))
            features, target = self._parse_objective_part(table.iloc[held_out_rows], bound)
            evaluator = stage_calls.select_evaluator(self.pipeline, frameworks.find_framework(type(estimator)))
            yield stage_calls.call_evaluator(evaluator, estimator, features, target, bound.get("evaluator", {}))

    def _read_objective_split(self, bound: Mapping[str, Mapping[str, Any]]) -> Any:
        if self._table is not None:
            return _check_objective_split(self._table)
        key = repr([bound.get(role) for role in READER_STAGES])
        if self._cached_split is None or self._cached_split[0] != key:
            data = stage_calls.call_reader(self.pipeline, bound.get("data_reader", {}))
            table = stage_calls.call_loader(self.pipeline, data, bound.get("data_loader", {}))
            first = next(iter(stage_calls.call_splitter(self.pipeline, table, bound.get("data_splitter", {})).values()))
            self._cached_split = (key, _check_objective_split(first))
        return self._cached_split[1]

    def _parse_objective_part(self, part: Any, bound: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Any]:
        features, target = stage_calls.call_parser(self.pipeline, part, bound.get("data_parser", {}))
        return stage_calls.call_transformer(self.pipeline, features), target


def read_objective_metric(metrics: Mapping[str, float], metric: str | None) -> float:
    """The value that trials are compared by: the named metric, or the evaluator's first.

    Raises:
        UsageError: the evaluator returns no such metric.
    """
    name = metric or next(iter(metrics), "")
    if name not in metrics:
        raise UsageError(
            f"The evaluator returns no metric '{name}'.{suggest_nearest(name, metrics)}",
            f"Choose one: --metric {' or '.join(metrics) or '(it returns none)'}.",
        )
    return metrics[name]


def _check_objective_split(split: Any) -> Any:
    if not hasattr(split, "iloc"):
        raise DataError(
            f"The train split is a {type(split).__name__}; only a table can be cross-validated.",
            "Return DataFrames from the data_splitter.",
        )
    return split


def _make_objective_folds(table: Any, targets: tuple[str, ...], folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Positions of training rows and held-out rows per fold, stratified by class."""
    import numpy as np

    if len(table) < 2 * folds:
        raise DataError(f"{len(table)} rows are too few for {folds} folds.", "Read more data, or give fewer --folds.")
    order = np.random.default_rng(seed).permutation(len(table))
    classes = defaults.encode_split_classes(table, targets)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    for number in range(folds):
        is_held_out = np.arange(len(order)) % folds == number
        yield np.sort(order[~is_held_out]), np.sort(order[is_held_out])
