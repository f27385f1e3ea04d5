"""Checks, before a version is created, that a server gives the same answers as training.

The saved model is loaded as a server loads it, and predicts the sample of `json_round_trip`: as one table, row by row,
and in a different order.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlapp import frameworks, normalization, prediction
from mlapp.errors import DataError, MlappError, ModelError, UserCodeError
from mlapp.frameworks.framework import SAVE_OTHERWISE
from mlapp.model import TrainedModel, load_model_estimator
from mlapp.prediction import Predictor
from mlapp.predictor_results import (
    SAMPLED_ITEMS,
    finish_predictor_result,
    has_streamed_predictor_results,
    normalize_predictor_result,
)
from mlapp.schema.feature_containers import count_feature_rows, take_feature_rows
from mlapp.schema.json_values import to_json_value
from mlapp.temporary_folders import open_temporary_folder
from mlapp.training.answer_comparison import ABSOLUTE, is_close_answer, list_answer_rows
from mlapp.training.json_round_trip import Sample
from mlapp.training.row_order import require_row_order
from mlapp.training.seeds import fix_seeds

log = logging.getLogger("mlapp")
TIME_SHARE, MIN_SECONDS = 0.05, 1.0
"""Time limit of the check, without saving and loading: a share of the training time, and a minimum in seconds."""
SINGLE_ROWS = 16
"""Rows that are predicted alone."""
CALLS = 5
"""Calls with the whole sample that must fit in the time limit."""
DEPENDENT = (
    "gives a row a different value when other rows are in the batch. A server of this version does not batch "
    "requests, so that no client's answer depends on another's."
)
SINGLE_ROW_TODO = (
    "A server predicts single rows: compute each row's values from that row alone, and give one row the same "
    "columns as many rows."
)
NO_INDEX = "A server's features have no index: make it a column in the data_reader, table.reset_index()."
INDEPENDENT = (
    "Compute each row's values from that row alone. Compute shift, rolling, rank and the like in the "
    "data_reader; learn means and the like in the model, as SimpleImputer does."
)


def check_model_round_trip(
    trained: TrainedModel,
    sample: Sample,
    predictions: Any,
    cost: float,
    *,
    folder: Path | None = None,
    must_be_savable: bool = True,
    report: Callable[[str], None] = log.warning,
) -> bool:
    """Check a trained model on a sample. Returns whether its server can batch the rows of several requests.

    Args:
        predictions: the trained model's predictions for the sample's features.
        cost: the seconds that they took.
        folder: the model's files, if they exist already.
        must_be_savable: as for `run`. If False, a model that cannot be saved is checked without saving and loading.
        report: receives a line if the check is incomplete.

    Raises:
        ModelError: the model cannot be saved or loaded, predicts differently after loading, or cannot predict a single
            row.
        DataError: the model predicts differently for rows from the server's decoder.
        UserCodeError: one of the user's functions raised.
    """
    budget = max(MIN_SECONDS, TIME_SHARE * trained.duration)
    original = prediction.make_predictor(trained)
    with fix_seeds():  # the check does not change the user's random numbers
        loaded = (
            _load_saved_model(trained, folder)
            if folder is not None
            else _save_and_load_model(trained, must_be_savable) or original
        )
        return _RoundTripCheck(original, loaded, sample, trained.format, report).compare_predictions(
            _list_predicted_rows(predictions, original), cost, budget
        )


def require_loadable_model(trained: TrainedModel, *, must_be_savable: bool = True) -> None:
    """Check that a model with unknown features can be saved and loaded.

    Raises:
        ModelError: it cannot be saved or loaded. UserCodeError: one of the user's functions raised.
    """
    with fix_seeds():
        _save_and_load_model(trained, must_be_savable)


class _RoundTripCheck:
    """Compares the predictions of a trained model with those of the same model as a server loads it."""

    def __init__(
        self, original: Predictor, loaded: Predictor, sample: Sample, format: str, report: Callable[[str], None]
    ) -> None:
        self._original, self._loaded, self._sample, self._report = original, loaded, sample, report
        # ONNX models compute with 32 bits.
        self._absolute = 100 * ABSOLUTE if format == "onnx" else ABSOLUTE

    def compare_predictions(self, expected: list[Any], cost: float, budget: float) -> bool:
        """Compare rows within the time limit `budget`, in seconds: at least two rows, or one if calls are slow."""
        count = count_feature_rows(self._sample.decoded) or 0
        deadline = time.perf_counter() + budget
        if not count:
            self._predict_rows(self._loaded, self._sample.decoded)
            return True
        first, seconds_alone = self._time_round_trip_row()
        if has_streamed_predictor_results(self._loaded.stage):
            return True
        if CALLS * seconds_alone > budget:  # the first call may have imported a library
            first, seconds_alone = self._time_round_trip_row()
        now = time.perf_counter()
        if 2 * seconds_alone > budget:
            self._report(f"check one row only: {self._loaded.stage.title} takes {seconds_alone:.1f} s for it")
            return self._compare_first_row(first, expected)
        if now + CALLS * cost > deadline:
            count = max(2, int(count * (deadline - now) / (CALLS * cost)))
            self._sample = self._sample.take_rows(range(count))
            expected = self._predict_rows(self._original, self._sample.features)[1]
        whole = self._predict_rows(self._loaded, self._sample.decoded)
        differing = self._find_first_difference(whole[1], expected, range(count))
        if differing is not None:
            if self._gives_random_answers(whole):
                return True
            raise self._make_difference_error(differing, whole[1], expected)
        stage = self._find_dependent_stage(whole, count, deadline)
        if stage is None or self._gives_random_answers(whole):
            return True
        if self._loaded.pipeline.predictor_options.batch:
            log.warning("%s %s %s", stage, DEPENDENT, INDEPENDENT)
        return False

    def _predict_rows(self, predictor: Predictor, features: Any) -> tuple[list[Any] | None, list[Any]]:
        """Transformed features and predictions as lists of rows. Passes a copy, as user code can modify features."""
        transformed = predictor.transform_features(copy.copy(features))
        result = finish_predictor_result(
            predictor.call_predictor(transformed), predictor.stage, max_items=SAMPLED_ITEMS
        )
        require_row_order(transformed, result, predictor.stage.title)
        return list_answer_rows(transformed), _list_predicted_rows(
            normalize_predictor_result(result, transformed, predictor.stage), predictor
        )

    def _time_round_trip_row(self) -> tuple[tuple[Any, Any], float]:
        """The loaded model's result for the first row alone, and the seconds that it took."""
        start = time.perf_counter()
        return self._predict_row(0), time.perf_counter() - start

    def _compare_first_row(self, first_row: tuple[Any, Any], expected: list[Any]) -> bool:
        """Compare only the first row: the loaded model predicted it alone, the trained model with other rows."""
        if self._find_first_difference(first_row[1], expected[:1], [0]) is None:
            return True
        self._sample = self._sample.take_rows([0])
        trained = self._predict_rows(self._original, self._sample.features)[1]
        is_dependent = self._find_first_difference(first_row[1], trained, [0]) is None
        if self._gives_random_answers(first_row):
            return True
        if not is_dependent:
            raise self._make_difference_error(0, first_row[1], trained)
        if self._loaded.pipeline.predictor_options.batch:
            log.warning("%s %s %s", self._loaded.stage.title, DEPENDENT, INDEPENDENT)
        return False

    def _predict_row(self, row: int) -> tuple[list[Any] | None, list[Any]]:
        try:
            return self._predict_rows(self._loaded, take_feature_rows(self._sample.decoded, [row]))
        except MlappError as error:
            raise ModelError(
                f"The model cannot predict one row alone: {error.what}",
                NO_INDEX if "RangeIndex" in error.what else SINGLE_ROW_TODO,
            ) from error

    def _find_dependent_stage(self, whole: tuple[Any, Any], count: int, deadline: float) -> str | None:
        """The title of a stage that computes a row's values from other rows; None if none is found in time."""
        title = None
        single_rows = _choose_single_rows(self._sample.decoded, count)
        for row in single_rows:  # continue after a difference, as a later row can raise an error
            title = self._find_differing_stage(self._predict_row(row), whole, [row]) or title
            if time.perf_counter() > deadline:
                break
        # Some rows occur twice, to expose code that looks for duplicates.
        order = [*range(count)[::-1], *single_rows]
        return title or self._find_differing_stage(
            self._predict_rows(self._loaded, take_feature_rows(self._sample.decoded, order)), whole, order
        )

    def _find_differing_stage(self, values: tuple[Any, Any], whole: tuple[Any, Any], rows: Sequence[int]) -> str | None:
        """The title of the first stage with values for these rows that differ from those in the whole table."""
        transformer = self._loaded.pipeline.stage("feature_transformer")
        if transformer is not None and values[0] is not None and whole[0] is not None:
            expected = [whole[0][row] for row in rows] if len(whole[0]) > max(rows) else []
            if len(values[0]) != len(rows) or not all(map(is_close_answer, values[0], expected)):
                return transformer.title
        expected = [whole[1][row] for row in rows]
        if self._find_first_difference(values[1], expected, rows) is None:
            return None
        return self._loaded.stage.title

    def _find_first_difference(self, actual: list[Any], expected: list[Any], rows: Sequence[int]) -> int | None:
        """The index of the first entry that differs by more than rounding, except for equally likely classes."""
        if len(actual) != len(expected):
            return 0
        for at, (left, right) in enumerate(zip(actual, expected, strict=True)):
            if not is_close_answer(left, right, self._absolute) and not self._is_tie(rows[at], left, right):
                return at
        return None

    def _is_tie(self, row: int, left: Any, right: Any) -> bool:
        """Whether two classes are equally likely for a row, so that rounding decides."""
        probabilities = getattr(self._loaded.estimator, "predict_proba", None)
        if probabilities is None or self._loaded.pipeline.stage("predictor") is not None:
            return False
        try:
            features = self._loaded.transform_features(copy.copy(take_feature_rows(self._sample.decoded, [row])))
            likely = sorted(list_answer_rows(probabilities(features))[0])  # type: ignore[index]
            return bool(likely[-1] - likely[-2] < 1e-3)
        except (MlappError, TypeError, ValueError, IndexError):
            return False

    def _gives_random_answers(self, whole: tuple[Any, Any]) -> bool:
        """Whether two identical calls return different results, so that no comparison is possible."""
        again = self._predict_rows(self._loaded, self._sample.decoded)
        return any(
            one is not None and (two is None or len(one) != len(two) or not all(map(is_close_answer, one, two)))
            for one, two in zip(whole, again, strict=True)
        )

    def _make_difference_error(self, row: int, actual: list[Any], expected: list[Any]) -> ModelError | DataError:
        """The error for a prediction that differs from that of the trained model: caused by the format, or by JSON."""
        difference = f"row {row} of the sample gives {actual[row]!r:.60} instead of {expected[row]!r:.60}"
        rows = self._predict_rows(self._original, self._sample.decoded)[1]
        if self._find_first_difference(rows, expected, range(len(expected))) is None:
            return ModelError(
                f"The saved and reloaded model does not predict like the trained one: {difference}.",
                "Save everything that the predictions depend on, or choose another format.",
            )
        return DataError(
            f"{self._loaded.stage.title} predicts differently for features that came as JSON: {difference}.",
            "Use only the columns' values: a table's index and attributes are not sent.",
        )


def _save_and_load_model(trained: TrainedModel, must_be_savable: bool) -> Predictor | None:
    with open_temporary_folder("check") as folder:
        try:
            trained.save(folder)
        except ModelError:
            if must_be_savable:
                raise
            return None
        return _load_saved_model(trained, folder)


def _load_saved_model(trained: TrainedModel, folder: Path) -> Predictor:
    """The model as a server loads it from its files."""
    parameters = {name: to_json_value(value) for name, value in trained.parameters.items()}
    framework = trained.framework.name
    try:
        estimator = load_model_estimator(trained.pipeline, framework, trained.format, folder, parameters)
    except MlappError as error:
        # Advise against training again: the next file would be unreadable, too.
        has_own_advice = error.__cause__ is None or isinstance(error, UserCodeError)
        todo = error.todo if has_own_advice else SAVE_OTHERWISE
        raise ModelError(f"The model can be saved but not loaded: {error.what}", todo) from error
    return dataclasses.replace(
        prediction.make_predictor(trained), estimator=estimator, framework=frameworks.get_framework(framework)
    )


def _list_predicted_rows(predictions: Any, predictor: Predictor) -> list[Any]:
    return normalization.normalize_to_rows(predictions, predictor.stage.title)


def _choose_single_rows(features: Any, count: int) -> list[int]:
    """Rows to predict alone: those with missing values, and others spread over the sample."""
    rows: list[int] = []
    if hasattr(features, "isna"):
        is_missing = features.isna().to_numpy()
        rows = [row for row in range(count) if is_missing[row].any()][: SINGLE_ROWS // 2]
    step = max(1, count // SINGLE_ROWS)
    return list(dict.fromkeys([*rows, *range(0, count, step)]))[: SINGLE_ROWS + len(rows)]
