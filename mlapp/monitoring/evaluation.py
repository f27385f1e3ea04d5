"""Runs the app's evaluator on live data with known truth, per window, version and segment."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlapp import frameworks, prediction
from mlapp.baseline import Baseline, read_baseline
from mlapp.config import Monitor
from mlapp.errors import DataError, MlappError
from mlapp.frameworks.metrics import compute_classification_metrics, compute_regression_metrics
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import Database, open_database
from mlapp.monitoring.live_rows import join_truths, read_live_rows
from mlapp.monitoring.place import Place, Window
from mlapp.monitoring.quality import FEWEST, QualityJudge, estimate_live_quality_error
from mlapp.monitoring.segments import name_segment_columns
from mlapp.monitoring.time_limit import limit_stage_time
from mlapp.monitoring.truth import Truth, count_unknown_truth_classes, decode_truth
from mlapp.monitoring.windows import Metric, Quality
from mlapp.pipeline import Pipeline, bind_pipeline_parameters
from mlapp.pipeline.parameters import list_parameters
from mlapp.prediction import Predictor
from mlapp.store import Manifest, ModelVersion, Store
from mlapp.training import stage_calls
from mlapp.training.reliability import compute_reliability_confidence

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("mlapp.monitoring")
MOST = 100_000
"""Maximum rows of one window that are evaluated: those with the smallest hashes."""
PATIENCE = 600.0
"""Seconds after which the evaluator is interrupted."""
SEGMENTS = 20
"""Maximum values of a segment's column that are evaluated: the most frequent ones."""


@dataclass(frozen=True)
class _Evaluated:
    """A version, ready for evaluation."""

    manifest: Manifest
    predictor: Predictor
    baseline: Baseline | None


class Evaluation:
    """Evaluates the windows of one app.

    Args:
        store: of its versions; `place`: of its log.
    """

    def __init__(self, pipeline: Pipeline, store: Store, place: Place, settings: Monitor) -> None:
        self._pipeline, self._store, self._place, self._settings = pipeline, store, place, settings
        self._rules = ColumnPrivacy(settings.columns, pipeline.name)
        self._versions: dict[str, _Evaluated | None] = {}
        self._judge = QualityJudge()

    def evaluate_windows(
        self, windows: Sequence[tuple[str, Window]], truths: Sequence[Truth] = ()
    ) -> dict[tuple[str, Window], Quality]:
        """The quality of each version in each window. Windows without truths have estimates where possible.

        Args:
            truths: from the truth_reader, in addition to the stored ones.
        """
        if not windows:
            return {}
        since, until = min(window.since for _, window in windows), max(window.until for _, window in windows)
        qualities: dict[tuple[str, Window], Quality] = {}
        with open_database(self._place, since=since, until=until, truths=truths) as database:
            has_truth = join_truths(database)
            for version, window in sorted(windows, key=lambda pair: (pair[1].since, pair[0])):
                qualities[version, window] = self._evaluate_window(database, version, window, has_truth=has_truth)
        return qualities

    def _evaluate_window(self, database: Database, version: str, window: Window, *, has_truth: bool) -> Quality:
        quality = Quality()
        loaded = self._load_version_once(version)
        if has_truth:
            table, quality.truths = read_live_rows(database, version, window, MOST)
            if loaded is not None and len(table):
                quality.unknown_classes = count_unknown_truth_classes(loaded.baseline, table["truth"])
                self._evaluate_metrics(quality, loaded, table)
        if loaded is not None and not quality.truths:
            self._estimate_accuracy(quality, loaded, database, window)
        return quality

    def _evaluate_metrics(self, quality: Quality, loaded: _Evaluated, table: pd.DataFrame) -> None:
        live = self.compute_metrics(loaded.predictor, loaded.manifest, table)
        errors = {} if loaded.baseline is None else next(reversed(loaded.baseline.errors.values()), {})
        trained = loaded.manifest.headline
        for name, value in live.items():
            if not math.isfinite(value):
                continue
            before, trained_error = trained.get(name), errors.get(name)
            error = estimate_live_quality_error(before, trained_error, value, len(table))
            quality.metrics[name] = round(value, 6)
            quality.details[name] = Metric(
                value=round(value, 6),
                error=error,
                trained=before,
                trained_error=None if trained_error is None else trained_error.error,
                rows=len(table),
            )
            if name in self._settings.quality:
                change = self._settings.quality[name]
                version = str(loaded.manifest.version)
                finding = self._judge.judge_metric(version, name, change, value, before, trained_error, len(table))
                if finding is not None:
                    quality.findings.append(finding)
        for column in self._settings.segments:
            self._evaluate_segments(quality, loaded, table, column)

    def _evaluate_segments(self, quality: Quality, loaded: _Evaluated, table: pd.DataFrame, column: str) -> None:
        name_in_log = name_segment_columns(loaded.manifest.schema.features.names).get(column, column)
        if name_in_log not in table.columns:
            return
        values = table[name_in_log]
        if values.map(lambda value: getattr(value, "__hash__", None) is None).any():  # lists
            values = values.map(str)
        groups = sorted(table.groupby(values, sort=False, dropna=False), key=lambda group: -len(group[1]))
        for value, rows in groups[:SEGMENTS]:
            if len(rows) < FEWEST:
                continue
            for name, live in self.compute_metrics(loaded.predictor, loaded.manifest, rows).items():
                if not math.isfinite(live):
                    continue
                segment = f"{column}={value}"
                quality.details[f"{name}[{segment}]"] = Metric(value=round(live, 6), rows=len(rows), segment=segment)

    def compute_metrics(self, predictor: Predictor, manifest: Manifest, table: pd.DataFrame) -> dict[str, float]:
        """The metrics of the app's evaluator, or of the logged predictions if features are redacted."""
        truth = decode_evaluated_truths(table["truth"])
        schema = manifest.schema.features
        names = schema.names or [str(at) for at in range(math.prod(schema.shape))]
        try:
            if not self._rules.has_rules_for(names) and all(
                name in table.columns for name in name_segment_columns(names).values()
            ):
                features = restore_logged_features(predictor, table)
                return self._score_by_evaluator(predictor, manifest, features, truth)
        except MlappError as error:
            log.warning("The evaluator cannot be run on logged features: %s %s", error.what, error.todo)
        return _evaluate_logged_predictions(manifest, table, truth, self._rules)

    def _score_by_evaluator(
        self, predictor: Predictor, manifest: Manifest, features: Any, truth: list[Any]
    ) -> dict[str, float]:
        import pandas as pd

        framework = frameworks.get_framework(manifest.framework)
        stage = stage_calls.select_evaluator(self._pipeline, framework)
        own = list_parameters([stage])
        names = {name for parameter in own for name in (parameter.name, parameter.full_name)}
        values = {name: value for name, value in manifest.parameters.items() if name in names}
        target = pd.Series(truth, name=self._pipeline.target if isinstance(self._pipeline.target, str) else "target")
        transformed = stage_calls.call_transformer(self._pipeline, features)
        with contextlib.redirect_stdout(io.StringIO()):
            arguments = bind_pipeline_parameters(own, values).get("evaluator", {})
            with limit_stage_time(stage.title, PATIENCE):
                return stage_calls.call_evaluator(stage, predictor.estimator, transformed, target, arguments)

    def _estimate_accuracy(self, quality: Quality, loaded: _Evaluated, database: Database, window: Window) -> None:
        """Estimate the accuracy from the model's confidence, calibrated on training's last split.

        The method is NannyML's confidence-based performance estimation (CBPE).
        """
        import numpy as np

        calibration = None if loaded.baseline is None else loaded.baseline.calibration
        names = loaded.manifest.schema.features.names
        if calibration is None or self._rules.has_rules_for(names) or "accuracy" not in loaded.manifest.headline:
            return
        table, _ = read_live_rows(database, str(loaded.manifest.version), window, 10_000, with_truth=False)
        if not len(table) or any(name not in table.columns for name in name_segment_columns(names).values()):
            return
        try:
            features = stage_calls.call_transformer(self._pipeline, restore_logged_features(loaded.predictor, table))
            evaluator = stage_calls.select_evaluator(self._pipeline, loaded.predictor.framework)
            confidence, _ = compute_reliability_confidence(
                loaded.predictor.estimator, stage_calls.convert_stage_features(evaluator, features)
            )
        except Exception as error:  # the model's library can raise anything
            log.debug("No estimate of the accuracy: %s", error)
            return
        edges = np.asarray(calibration.edges)
        at = np.minimum(np.searchsorted(edges, confidence), len(edges) - 1)
        value = float(np.asarray(calibration.accuracy)[at].mean())
        trained = loaded.manifest.headline["accuracy"]
        quality.details["accuracy"] = Metric(value=round(value, 6), trained=trained, rows=len(table), estimated=True)

    def _load_version_once(self, version: str) -> _Evaluated | None:
        if version not in self._versions:
            self._versions[version] = None
            with contextlib.suppress(MlappError):
                self._versions[version] = self._load_version(self._store.get(self._pipeline.name, version))
        return self._versions[version]

    def _load_version(self, version: ModelVersion) -> _Evaluated:
        return _Evaluated(
            version.manifest, prediction.load_predictor(self._pipeline, version), read_baseline(version.files)
        )


def restore_logged_features(predictor: Predictor, table: pd.DataFrame) -> Any:
    """Logged features with the schema's types, as the feature_transformer receives them.

    Raises:
        InputError: they do not fit its schema. DataError: the log has no such column.
    """
    schema = predictor.schema.features
    if schema.kind == "table":
        columns = list(name_segment_columns(schema.names).values())
        missing = [name for name in columns if name not in table.columns]
        if missing:
            raise DataError(f"The log has no column '{missing[0]}'.", "Choose a version with the features of the log.")
        features = table[columns]
        return predictor.accept_inputs(features.set_axis(schema.names, axis=1).reset_index(drop=True))
    if schema.kind == "array":
        names = [str(at) for at in range(math.prod(schema.shape))]
        if names and names[0] in table.columns:
            return table[names].to_numpy(dtype=schema.dtype).reshape(len(table), *schema.shape)
    return predictor.accept_inputs(table["features"].tolist())


def decode_evaluated_truths(truths: pd.Series[Any]) -> list[Any]:
    """Decode truths from JSON, each distinct text once."""
    truth_by_text = {text: decode_truth(text) for text in truths.unique()}
    return [truth_by_text[text] for text in truths]


def _evaluate_logged_predictions(
    manifest: Manifest, table: pd.DataFrame, truth: list[Any], rules: ColumnPrivacy
) -> dict[str, float]:
    """The default metrics of the logged predictions, limited to those that the version has."""
    if "prediction" not in table.columns:
        return {}
    headline = manifest.headline
    if "accuracy" in headline:  # the hash of a class is a class too
        truth = rules.redact_values("prediction", truth)
    predictions = table["prediction"].tolist()
    try:
        metrics = (
            compute_classification_metrics(truth, predictions)
            if "accuracy" in headline
            else compute_regression_metrics(truth, predictions)
        )
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in metrics.items() if name in headline}
