"""Compares versions on the same live data: replays logged features, and evaluates rows with known truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mlapp import prediction
from mlapp.baseline.predictions import split_baseline_predictions, summarize_predictions
from mlapp.errors import DataError, InputError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import Counter
from mlapp.monitoring.database import open_database
from mlapp.monitoring.drift import compute_drift_distance
from mlapp.monitoring.evaluation import Evaluation, restore_logged_features
from mlapp.monitoring.inspection import open_place_for_inspection, read_truths
from mlapp.monitoring.live_rows import join_truths
from mlapp.predictor_results import finish_predictor_result
from mlapp.project import Project
from mlapp.training.reliability import list_reliability_rows

MOST = 20_000
"""Maximum rows that each version predicts."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One version, with its metrics on the rows with known truth."""

    version: str
    rows: int
    truths: int
    metrics: dict[str, float]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Versions on the same rows.

    Attributes:
        agreement: share of the rows with equal predictions of the first and the last version.
        distance: between the distributions of their predictions.
    """

    rows: int
    agreement: float
    distance: float
    sides: list[Side]


def compare_versions_live(project: Project, versions: Sequence[int], *, since: float, until: float) -> Comparison:
    """Replay the log of a time interval through versions.

    Args:
        since, until: seconds since 1970.

    Raises:
        DataError: nothing is logged, or the logged features are redacted.
    """
    app, store, settings = project.app, project.store, project.settings.monitor
    place, rules = open_place_for_inspection(project), ColumnPrivacy(settings.columns, app.name)
    evaluation = Evaluation(app, store, place, settings)
    model_versions = [store.get(app.name, version) for version in versions]
    names = {name for version in model_versions for name in version.manifest.schema.features.names}
    if rules.has_rules_for(names):
        changed = ", ".join(sorted(name for name in names if rules.has_rules_for([name])))
        raise DataError(
            f"monitor.columns changes {changed} before it is logged.",
            "Compare without --on, or remove the rule and log new rows.",
        )
    truths = read_truths(app, rules, place, since, until, None)
    with open_database(place, since=since, until=until, truths=truths) as database:
        join_truths(database)
        where = "epoch(time) >= ? AND epoch(time) < ?"
        count = database.execute(f"SELECT count(*) FROM log WHERE {where}", [since, until]).fetchone()[0]
        if not count:
            raise DataError(
                "Nothing was logged in that time.",
                "Choose a longer period, or turn the log on: `monitor: {log: sample}` in mlapp.yaml.",
            )
        share = min(1.0, MOST / count)
        chance = f'hash(request, "row") / 18446744073709551616.0 < {share}'
        rows = database.execute(f"SELECT * FROM log WHERE {where} AND {chance}", [since, until]).df()
        labeled_rows = database.execute(f"SELECT * FROM known WHERE {where} AND {chance}", [since, until]).df()
    sides, predictions = [], []
    for version in model_versions:
        predictor = prediction.load_predictor(app, version)
        try:
            features = restore_logged_features(predictor, rows)
        except (DataError, InputError) as error:  # rows of a version with other features
            raise DataError(
                f"Version {version.version} cannot predict every logged row: {error.what}",
                "Choose a time in which all rows have the features of both versions, such as --on live:1d.",
            ) from None
        transformed = predictor.transform_features(features)
        predictions.append(
            list_reliability_rows(finish_predictor_result(predictor.call_predictor(transformed), predictor.stage))
        )
        metrics = evaluation.compute_metrics(predictor, version.manifest, labeled_rows) if len(labeled_rows) else {}
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        sides.append(Side(version=str(version.version), rows=len(rows), truths=len(labeled_rows), metrics=finite))
    first, last = predictions[0], predictions[-1]
    agreement = float(np.mean([_is_same_compared_prediction(a, b) for a, b in zip(first, last, strict=True)]))
    return Comparison(
        rows=len(rows), agreement=agreement, distance=_compute_comparison_distance(first, last), sides=sides
    )


def _compute_comparison_distance(first: list[object], last: list[object]) -> float:
    from mlapp.baseline import Baseline

    baseline = Baseline(predictions=summarize_predictions(first))
    counter = Counter(baseline)
    counter.add_predictions(split_baseline_predictions(last))
    counts = counter.list_column_counts()
    return max((compute_drift_distance(column, counts[column.name]) for column in baseline.predictions), default=0.0)


def _is_same_compared_prediction(a: object, b: object) -> bool:
    return bool(np.all(np.asarray(a == b)))
