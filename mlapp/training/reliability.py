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
from mlapp.schema.feature_containers import count_feature_rows, take_feature_container_rows
from mlapp.training import stage_calls
from mlapp.training.sampling import sample_predictions

log = logging.getLogger("mlapp")
RESAMPLES = 50
FEWEST = 10
ROWS = 2_000
"""Rows of a resample, at most."""
BUDGET = 2.0
"""Seconds for the resamples of one split."""
BINS = 10
"""Bins of confidence."""
PART = 500
"""Rows that are predicted at once, for the distribution of predictions."""


class Reliability:
    """Collects the errors of the metrics during the evaluation of the splits.

    Args:
        evaluator: the stage that computes the metrics, and its `parameters`.
    """

    def __init__(self, evaluator: Stage, estimator: Any, parameters: Mapping[str, Any]) -> None:
        self._evaluator, self._estimator, self._parameters = evaluator, estimator, parameters
        self._has_first = False
        self._errors: dict[str, dict[str, MetricError]] = {}
        self._calibration: Calibration | None = None

    def add(self, split: str, features: Any, target: Any) -> None:
        """Measure one split that the model was not trained on. The first split is only counted.

        An evaluator that cannot take a resample leaves its metrics without an error.
        """
        if not self._has_first:
            self._has_first = True
            return
        self._errors[split] = estimate_metric_errors(
            self._evaluator, self._estimator, features, target, self._parameters
        )
        formed = stage_calls.convert_stage_features(self._evaluator, features)
        self._calibration = measure_reliability(self._estimator, formed, target) or self._calibration

    def complete(self, baseline: Baseline, predictions: list[Any], rules: Mapping[str, str]) -> Baseline:
        """The baseline with the errors, and with the distribution of predictions.

        Args:
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
        features, target: of the split, transformed.
    """
    import numpy as np

    rows = count_feature_rows(features) or 0
    if target is None or rows < 2:
        return {}
    size = min(rows, ROWS)
    random, started = np.random.default_rng(0), time.perf_counter()
    found: list[dict[str, float]] = []
    for attempt in range(RESAMPLES):
        chosen = random.integers(0, rows, size)
        try:
            # The evaluation of the split has already printed the output of the user's function.
            with contextlib.redirect_stdout(io.StringIO()):
                found.append(
                    stage_calls.call_evaluator(
                        evaluator,
                        estimator,
                        take_feature_container_rows(features, chosen),
                        take_feature_container_rows(target, chosen),
                        dict(parameters),
                    )
                )
        except MlappError:  # such as ROC AUC of a resample with one class
            if attempt >= FEWEST and not found:
                return {}
        if found and not found[0]:  # the default metrics do not apply; the evaluation of the split has reported it
            return {}
        seconds = time.perf_counter() - started
        if seconds > BUDGET and (len(found) >= FEWEST or seconds > 2 * BUDGET):
            break
    if len(found) < 2:
        return {}
    scale = math.sqrt(size / rows)
    errors = {}
    for name in found[0]:
        values = np.array([metrics.get(name, np.nan) for metrics in found], dtype=float)
        values = values[np.isfinite(values)]
        if len(values) >= 2:
            errors[name] = MetricError(float(values.std(ddof=1)) * scale, rows)
    return errors


def measure_reliability(estimator: Any, features: Any, target: Any) -> Calibration | None:
    """How often a classifier is right at each confidence; None for a model without probabilities."""
    import numpy as np

    try:
        confidence, predicted = compute_reliability_confidence(estimator, features)
        right = predicted == np.asarray(target).ravel()
    except Exception:  # any error of a model that is not such a classifier
        return None
    if not len(confidence) or np.shape(right) != confidence.shape:
        return None
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:], method="inverted_cdf"))
    at = np.minimum(np.searchsorted(edges, confidence), len(edges) - 1)
    counts = np.bincount(at, minlength=len(edges))
    accuracy = np.bincount(at, weights=right.astype(float), minlength=len(edges)) / np.maximum(counts, 1)
    return Calibration([float(edge) for edge in edges], [float(share) for share in accuracy], len(confidence))


def compute_reliability_confidence(estimator: Any, features: Any) -> tuple[Any, Any]:
    """The probability of each row's most likely class, and that class.

    Raises:
        Exception: the model gives no probabilities; of any type, as the model's library raises it.
    """
    import numpy as np

    probabilities = np.asarray(estimator.predict_proba(features), dtype=float)
    if probabilities.ndim != 2:
        raise TypeError("the probabilities are not a table")
    classes = np.asarray(estimator.classes_)
    return probabilities.max(axis=1), classes[probabilities.argmax(axis=1)]


def predict_reliability_sample(pipeline: Pipeline, framework: Framework, estimator: Any, features: Any) -> list[Any]:
    """Predictions for a sample of training rows, for their distribution. Empty if they cannot be made.

    The schema's own rows were predicted before. An error here comes from costly calls, such as remote ones.
    """
    started = time.perf_counter()
    found: list[Any] = []
    rows = count_feature_rows(features) or 0
    for start in range(0, rows, PART):
        part = take_feature_container_rows(features, range(start, min(start + PART, rows)))
        try:
            made, _ = sample_predictions(pipeline, framework, estimator, part)
        except MlappError as error:
            log.warning("The baseline has no distribution of predictions: %s", error.what)
            return []
        found += list_reliability_rows(made)
        if time.perf_counter() - started > BUDGET:
            break
    return found


def list_reliability_rows(predictions: Any) -> list[Any]:
    """The result of a predictor as a list with one entry for each row."""
    title = "the predictor"
    return normalization.normalize_to_rows(normalization.normalize_predictions(predictions, title), title)
