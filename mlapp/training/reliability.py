"""Measures a version's reliability: the standard errors of its metrics, and a classifier's calibration.

The errors come from the bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979): the evaluator
runs on rows drawn with replacement, and the spread of its results is the error. For a large split it uses fewer rows
than exist, and the error is scaled by the square root of the ratio (Bickel, Götze and van Zwet, "Resampling fewer
than n observations", 1997).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from mlapp import normalization
from mlapp.baseline import Baseline, Calibration, MetricError, summarize_predictions
from mlapp.errors import MlappError
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline, Stage
from mlapp.schema.feature_containers import count_feature_rows, take_feature_rows
from mlapp.training import stage_calls
from mlapp.training.sampling import sample_predictions

log = logging.getLogger("mlapp")
RESAMPLES = 50
MIN_RESAMPLES = 10
"""Resamples before the time limit ends the estimate."""
MAX_ROWS = 2_000
"""Maximum number of rows in a resample."""
BUDGET = 2.0
"""Time limit in seconds for the resamples of one split."""
BINS = 10
"""Number of bins of confidence."""
PART_ROWS = 500
"""Rows per call for the distribution of predictions."""


class Reliability:
    """Collects the errors of the metrics during the evaluation of the splits.

    Args:
        evaluator: the stage that computes the metrics.
        estimator: the trained model.
        parameters: the evaluator's parameters.
    """

    def __init__(self, evaluator: Stage, estimator: Any, parameters: Mapping[str, Any]) -> None:
        self._evaluator, self._estimator, self._parameters = evaluator, estimator, parameters
        self._has_first = False
        self._errors: dict[str, dict[str, MetricError]] = {}
        self._calibration: Calibration | None = None

    def add_split(self, split: str, features: Any, target: Any) -> None:
        """Estimate the errors for one split. Skips the first split, on which the model was trained.

        If the evaluator fails on resamples, its metrics get no error.
        """
        if not self._has_first:
            self._has_first = True
            return
        self._errors[split] = estimate_metric_errors(
            self._evaluator, self._estimator, features, target, self._parameters
        )
        stage_features = stage_calls.convert_stage_features(self._evaluator, features)
        self._calibration = measure_reliability(self._estimator, stage_features, target) or self._calibration

    def complete_baseline(self, baseline: Baseline, predictions: list[Any], rules: Mapping[str, str]) -> Baseline:
        """The baseline with the errors and the distribution of predictions.

        Args:
            predictions: one entry per row.
            rules: column → rule for its stored values.
        """
        return msgspec.structs.replace(
            baseline,
            predictions=summarize_predictions(predictions, rules),
            errors=self._errors,
            calibration=self._calibration,
        )


def estimate_metric_errors(
    evaluator: Stage, estimator: Any, features: Any, target: Any, parameters: Mapping[str, Any]
) -> dict[str, MetricError]:
    """The standard error of each metric of a split. Empty if rows cannot be drawn or time runs out.

    Args:
        features, target: the split's transformed features, and its target.
    """
    import numpy as np

    rows = count_feature_rows(features) or 0
    if target is None or rows < 2:
        return {}
    size = min(rows, MAX_ROWS)
    random, started = np.random.default_rng(0), time.perf_counter()
    samples: list[dict[str, float]] = []
    for attempt in range(RESAMPLES):
        row_numbers = random.integers(0, rows, size)
        try:
            # The evaluation of the split has already printed the output of the user's function.
            with contextlib.redirect_stdout(io.StringIO()):
                samples.append(
                    stage_calls.call_evaluator(
                        evaluator,
                        estimator,
                        take_feature_rows(features, row_numbers),
                        take_feature_rows(target, row_numbers),
                        dict(parameters),
                    )
                )
        except MlappError:  # such as ROC AUC of a resample with one class
            if attempt >= MIN_RESAMPLES and not samples:
                return {}
        if samples and not samples[0]:  # the default metrics do not apply; the evaluation of the split has reported it
            return {}
        seconds = time.perf_counter() - started
        if seconds > BUDGET and (len(samples) >= MIN_RESAMPLES or seconds > 2 * BUDGET):
            break
    if len(samples) < 2:
        return {}
    scale = math.sqrt(size / rows)
    errors = {}
    for name in samples[0]:
        values = np.array([metrics.get(name, np.nan) for metrics in samples], dtype=float)
        values = values[np.isfinite(values)]
        if len(values) >= 2:
            errors[name] = MetricError(float(values.std(ddof=1)) * scale, rows)
    return errors


def measure_reliability(estimator: Any, features: Any, target: Any) -> Calibration | None:
    """A classifier's accuracy at each level of confidence; None for a model without probabilities."""
    import numpy as np

    try:
        confidence, predicted = compute_reliability_confidence(estimator, features)
        is_right = predicted == np.asarray(target).ravel()
    except Exception:  # any error of a model that is not such a classifier
        return None
    if not len(confidence) or np.shape(is_right) != confidence.shape:
        return None
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:], method="inverted_cdf"))
    bins = np.minimum(np.searchsorted(edges, confidence), len(edges) - 1)
    counts = np.bincount(bins, minlength=len(edges))
    accuracy = np.bincount(bins, weights=is_right.astype(float), minlength=len(edges)) / np.maximum(counts, 1)
    return Calibration([float(edge) for edge in edges], [float(share) for share in accuracy], len(confidence))


def compute_reliability_confidence(estimator: Any, features: Any) -> tuple[Any, Any]:
    """The probability of each row's most likely class, and that class.

    Raises:
        Exception: the model has no probabilities; the type depends on the model's library.
    """
    import numpy as np

    probabilities = np.asarray(estimator.predict_proba(features), dtype=float)
    if probabilities.ndim != 2:
        raise TypeError("the probabilities are not a table")
    classes = np.asarray(estimator.classes_)
    return probabilities.max(axis=1), classes[probabilities.argmax(axis=1)]


def predict_reliability_sample(pipeline: Pipeline, framework: Framework, estimator: Any, features: Any) -> list[Any]:
    """Predictions for a sample of training rows, for their distribution. Empty if a call fails.

    The rows of the schema's sample have already been predicted, so an error comes from a call such as a remote one.
    """
    started = time.perf_counter()
    rows_found: list[Any] = []
    rows = count_feature_rows(features) or 0
    for start in range(0, rows, PART_ROWS):
        part = take_feature_rows(features, range(start, min(start + PART_ROWS, rows)))
        try:
            predictions, _ = sample_predictions(pipeline, framework, estimator, part)
        except MlappError as error:
            log.warning("The baseline has no distribution of predictions: %s", error.what)
            return []
        rows_found += list_reliability_rows(predictions)
        if time.perf_counter() - started > BUDGET:
            break
    return rows_found


def list_reliability_rows(predictions: Any) -> list[Any]:
    """A predictor's result as a list with one entry per row."""
    title = "the predictor"
    return normalization.normalize_to_rows(normalization.normalize_predictions(predictions, title), title)
