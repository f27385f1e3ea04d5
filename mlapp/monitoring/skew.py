"""Measures training-serving skew by predicting logged rows again, as training would."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from mlapp import prediction
from mlapp.baseline.build import build_baseline_columns, to_category_text
from mlapp.errors import DataError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import Counter, Counts
from mlapp.monitoring.database import open_database
from mlapp.monitoring.drift import compute_drift_distances
from mlapp.monitoring.evaluation import restore_logged_features
from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.monitoring.live_rows import read_live_rows
from mlapp.monitoring.place import DAY, Window
from mlapp.predictor_results import finish_predictor_result
from mlapp.project import Project
from mlapp.training.reliability import list_reliability_rows

CLOSE = 1e-6
"""Numbers with a smaller relative difference count as equal."""
NAMED = 5
"""Maximum number of columns that are reported: those in which the differing rows are most unusual."""
TELLS = 0.2
"""Distance between the differing and the other rows from which a column is reported."""


class SkewedColumn(msgspec.Struct, frozen=True):
    """A column that is distributed differently in the rows with differing predictions."""

    name: str
    distance: float
    text: str


class Skew(msgspec.Struct, frozen=True):
    """The number of rows that were predicted again, the number of differences, and the columns that explain them."""

    version: str
    rows: int
    different: int
    columns: list[SkewedColumn]


def find_skew(project: Project, rows: int, version: str | None = None) -> Skew:
    """Predict the last rows of the log again.

    Raises:
        DataError: there is no log of that version, or the logged features are redacted.
    """
    app, store = project.app, project.store
    number = store.resolve(app.name, version or project.settings.serve.model)
    model_version = store.get(app.name, number)
    predictor = prediction.load_predictor(app, model_version)
    rules = ColumnPrivacy(project.settings.monitor.columns, app.name)
    if rules.has_rules_for(model_version.manifest.schema.features.names):
        changed = [name for name in model_version.manifest.schema.features.names if rules.has_rules_for([name])]
        raise DataError(
            f"monitor.columns changes {', '.join(changed)} before it is logged.",
            "Remove the rule and log new rows: only unchanged features can be predicted again.",
        )
    with open_database(open_place_for_inspection(project), version=str(number)) as database:
        table, _ = read_live_rows(database, str(number), Window(0, int(time.time()) + DAY), rows, with_truth=False)
    if not len(table) or "prediction" not in table.columns:
        raise DataError(
            f"There are no logged predictions of version {number}.",
            "Turn the log on, `monitor: {log: sample}` in mlapp.yaml, and serve the version.",
        )
    features = restore_logged_features(predictor, table)
    again = list_reliability_rows(
        finish_predictor_result(predictor.call_predictor(predictor.transform_features(features)), predictor.stage)
    )
    then = table["prediction"].tolist()
    is_different = np.array([not _is_unskewed_answer(old, new) for old, new in zip(then, again, strict=True)])
    return Skew(str(number), len(table), int(is_different.sum()), _list_skewed_columns(features, is_different))


def _list_skewed_columns(features: Any, is_different: Any) -> list[SkewedColumn]:
    if not is_different.any() or not hasattr(features, "iloc"):
        return []
    if is_different.all():
        return []
    from mlapp.baseline import Baseline

    baseline = Baseline(features=build_baseline_columns(features[~is_different]))
    counter = Counter(baseline)
    counter.add_features(features[is_different])
    counts = Counts(version="", since=0, until=0, columns=counter.list_column_counts())
    distances = sorted(compute_drift_distances(baseline, counts).items(), key=lambda pair: -pair[1])[:NAMED]
    return [
        SkewedColumn(
            name,
            round(distance, 4),
            f"its values are distributed differently in the differing rows, distance {distance:.2f}",
        )
        for name, distance in distances
        if distance >= TELLS
    ]


def _is_unskewed_answer(old: Any, new: Any) -> bool:
    if isinstance(old, (list, tuple, np.ndarray)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(
            _is_unskewed_answer(one, other) for one, other in zip(old, new, strict=True)
        )
    try:
        first, second = float(old), float(new)
    except (TypeError, ValueError):
        return to_category_text(old) == to_category_text(new)
    return first == second or abs(first - second) <= CLOSE * max(abs(first), abs(second)) or first != first
