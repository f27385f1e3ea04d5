"""The bodies of the tasks: the steps of a run in one process, which pass data in folders.

This module is independent of Flyte. A task calls one of these functions with the folders that Flyte downloaded.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from mlapp import frameworks
from mlapp.baseline import Baseline, draw_baseline_rows, read_baseline
from mlapp.baseline.redaction import redact_schema
from mlapp.flyte import data_folder
from mlapp.flyte.data_folder import Identity
from mlapp.model import TrainedModel, load_model_estimator, require_savable_model
from mlapp.monitoring.closing import close_windows
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameters import flatten_parameters
from mlapp.project import Project
from mlapp.provenance import GitState
from mlapp.schema import ModelSchema, Schema, infer_prediction_schema, infer_schema
from mlapp.store import Manifest, ModelVersion, Signer, Store
from mlapp.store.folder_storage import FolderStorage
from mlapp.temporary_folders import open_temporary_folder
from mlapp.training import round_trip, stage_calls
from mlapp.training.json_round_trip import send_through_json
from mlapp.training.monitored_names import check_monitored_columns
from mlapp.training.raw_inputs import make_raw_inputs
from mlapp.training.reliability import Reliability, predict_reliability_sample
from mlapp.training.sampling import sample_feature_rows, sample_predictions
from mlapp.training.splits import (
    PREDICTED_ROWS,
    copy_split_rows,
    describe_split,
    identify_split_table,
    list_split_columns,
    name_split_array_schema,
    widen_schema_by_split,
)

Bound = Mapping[str, Mapping[str, Any]]
"""Parameter values by stage and name."""
TABLE = "table"
TRAINED = "trained.json"
MANIFEST = "manifest.json"
FILES = "files"


class FittedModel(msgspec.Struct, frozen=True):
    """The record of a trained model, in addition to its files."""

    framework: str
    model_format: str
    schema: ModelSchema
    identity: Identity
    splits: list[str]
    started: datetime
    duration: float
    kind: str
    batching: bool = True


@dataclass(frozen=True, kw_only=True)
class SavedModel(TrainedModel):
    """A model with its files already written. Saving copies them without loading the model.

    Attributes:
        files: the folder with the files; kind: the name of the model's class.
    """

    files: Path
    kind: str

    @property
    def kind_name(self) -> str:
        return self.kind

    def save(self, folder: Path) -> None:
        shutil.copytree(self.files, folder, dirs_exist_ok=True)


def run_read_step(pipeline: Pipeline, bound: Bound, out: Path, *, pickle: bool = False) -> None:
    """Read and load the data; write the table to `out`."""
    data = stage_calls.call_reader(pipeline, bound.get("data_reader", {}))
    table = stage_calls.call_loader(pipeline, data, bound.get("data_loader", {}))
    data_folder.write_folder_values(out, {TABLE: table}, Identity(*identify_split_table(table)), pickle=pickle)


def run_split_step(pipeline: Pipeline, bound: Bound, table: Path, out: Path, *, pickle: bool = False) -> None:
    """Split the table; write the splits to `out`."""
    values, identity = data_folder.read_folder_values(table)
    splits = stage_calls.call_splitter(pipeline, values[TABLE], bound.get("data_splitter", {}))
    data_folder.write_folder_values(out, splits, identity, pickle=pickle)


def run_train_step(pipeline: Pipeline, bound: Bound, splits: Path, out: Path) -> None:
    """Build and fit the model on the first split; write it to `out` in its framework's format."""
    started, start = datetime.now(timezone.utc), time.perf_counter()
    model = stage_calls.call_builder(pipeline, bound.get("model", {}))
    initial_framework = frameworks.find_framework(type(model))
    trainer = stage_calls.select_trainer(pipeline, initial_framework)
    stage_calls.check_trainer_parameters(trainer, initial_framework, bound.get("trainer", {}))
    require_savable_model(pipeline, initial_framework, model)
    stage_calls.require_predict(pipeline, initial_framework, model)
    index = data_folder.open_folder_index(splits)
    part = data_folder.read_folder_value(splits, index.names[0])
    columns = list_split_columns(part)
    features, target = stage_calls.call_parser(pipeline, part, bound.get("data_parser", {}))
    features_schema = name_split_array_schema(infer_schema(features, columns), features, part)
    del part
    check_monitored_columns(pipeline.monitor_settings, features_schema)
    sample = send_through_json(pipeline, initial_framework, features_schema, sample_feature_rows(features))
    baseline_rows = copy_split_rows(draw_baseline_rows(features, PREDICTED_ROWS))
    transformed = stage_calls.call_transformer(pipeline, features)
    baseline = describe_split(pipeline, features, transformed, target)
    del features
    estimator = stage_calls.call_trainer(trainer, model, transformed, target, bound.get("trainer", {}))
    framework = frameworks.find_framework(type(estimator))
    predictions, cost = sample_predictions(pipeline, framework, estimator, sample.features)
    features_schema = redact_schema(
        _widen_task_schema(pipeline, bound, features_schema, splits), pipeline.monitor_settings.columns
    )
    trained = TrainedModel(
        pipeline=pipeline,
        estimator=estimator,
        framework=framework,
        parameters=flatten_parameters(bound),
        metrics={},
        schema=ModelSchema(
            features=features_schema,
            predictions=infer_prediction_schema(predictions),
            inputs=make_raw_inputs(pipeline, features_schema),
        ),
        fingerprint=index.identity.fingerprint,
        rows=index.identity.rows,
        columns=index.identity.columns,
        started=started,
        duration=time.perf_counter() - start,
        baseline=_measure_task_baseline(pipeline, bound, splits, framework, estimator, baseline_rows, baseline),
    )
    (out / FILES).mkdir()
    trained.save(out / FILES)
    batching = round_trip.check_model_round_trip(trained, sample, predictions, cost, folder=out / FILES)
    fitted = FittedModel(
        framework.name,
        trained.format,
        trained.schema,
        index.identity,
        index.names,
        started,
        trained.duration,
        trained.kind_name,
        batching,
    )
    (out / TRAINED).write_bytes(msgspec.json.format(msgspec.json.encode(fitted)))


def _widen_task_schema(pipeline: Pipeline, bound: Bound, schema: Schema, splits: Path) -> Schema:
    """The schema with the ranges of all splits, because a server accepts values of any split. Reads one at a time."""
    for name in data_folder.open_folder_index(splits).names[1:]:
        part = data_folder.read_folder_value(splits, name)
        schema = widen_schema_by_split(schema, stage_calls.call_parser(pipeline, part, bound.get("data_parser", {}))[0])
    return schema


def _measure_task_baseline(
    pipeline: Pipeline,
    bound: Bound,
    splits: Path,
    framework: frameworks.Framework,
    estimator: Any,
    baseline_rows: Any,
    baseline: Baseline,
) -> Baseline:
    """The baseline with the standard errors of the metrics. It uses the evaluator's default parameters, because the
    training task does not receive others.
    """
    reliability = Reliability(stage_calls.select_evaluator(pipeline, framework), estimator, {})
    for number, name in enumerate(data_folder.open_folder_index(splits).names):
        if number == 0:
            reliability.add_split(name, None, None)
            continue
        features, target = stage_calls.call_parser(
            pipeline, data_folder.read_folder_value(splits, name), bound.get("data_parser", {})
        )
        reliability.add_split(name, stage_calls.call_transformer(pipeline, features), target)
    predictions = predict_reliability_sample(pipeline, framework, estimator, baseline_rows)
    return reliability.complete_baseline(baseline, predictions, pipeline.monitor_settings.columns)


def run_evaluate_step(pipeline: Pipeline, bound: Bound, splits: Path, trained: Path) -> dict[str, dict[str, float]]:
    """The metrics of each split, in the order of the splits."""
    fitted = _read_task_model(trained)
    estimator = load_model_estimator(
        pipeline, fitted.framework, fitted.model_format, trained / FILES, bound.get("model", {})
    )
    evaluator = stage_calls.select_evaluator(pipeline, frameworks.get_framework(fitted.framework))
    metrics = {}
    for name in data_folder.open_folder_index(splits).names:
        features, target = stage_calls.call_parser(
            pipeline, data_folder.read_folder_value(splits, name), bound.get("data_parser", {})
        )
        transformed = stage_calls.call_transformer(pipeline, features)
        metrics[name] = stage_calls.call_evaluator(
            evaluator, estimator, transformed, target, bound.get("evaluator", {})
        )
    return metrics


def run_save_step(
    pipeline: Pipeline,
    bound: Bound,
    trained: Path,
    metrics: Mapping[str, Mapping[str, float]],
    out: Path,
    *,
    origin: Mapping[str, str],
    git: GitState | None = None,
    tuning: Mapping[str, Any] | None = None,
    signer: Signer | None = None,
) -> ModelVersion:
    """Write a version to `out` in the store's layout: `manifest.json` and `files/`. A store assigns the number later.

    Flyte's maps are unordered, so this restores the order of the splits and of the evaluator's metrics.
    """
    fitted, baseline = _read_task_model(trained), read_baseline(trained / FILES)
    model = SavedModel(
        pipeline=pipeline,
        estimator=None,
        kind=fitted.kind,
        files=trained / FILES,
        framework=frameworks.get_framework(fitted.framework),
        parameters=flatten_parameters(bound),
        metrics={split: _restore_task_metric_order(metrics[split], baseline) for split in fitted.splits},
        schema=fitted.schema,
        fingerprint=fitted.identity.fingerprint,
        rows=fitted.identity.rows,
        columns=fitted.identity.columns,
        started=fitted.started,
        duration=fitted.duration,
        batching=fitted.batching,
        baseline=baseline,
    )
    with open_temporary_folder("flyte") as folder:
        store = Store(FolderStorage(folder), signer)
        version = store.put(model, origin=origin, git=git, tuning=tuning)
        (out / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(version.manifest)))
        shutil.copytree(version.files, out / FILES)
    return open_saved_version(out)


def _restore_task_metric_order(metrics: Mapping[str, float], baseline: Baseline | None) -> dict[str, float]:
    """Metrics in the evaluator's order, which the baseline's errors have. Other metrics follow by name."""
    errors = baseline.errors.values() if baseline else ()
    known_names = list(dict.fromkeys(name for split in errors for name in split))
    return {name: metrics[name] for name in (*known_names, *sorted({*metrics} - {*known_names})) if name in metrics}


def open_saved_version(folder: Path) -> ModelVersion:
    """The version that `run_save_step` wrote."""
    return ModelVersion(msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest), folder / FILES)


def run_monitor_step(project: Project) -> str:
    """Close the windows that have ended. Returns a description of the work."""
    result = close_windows(project)
    lines = [f"{result.windows} windows closed, {len(result.sent)} alarms begun or ended."]
    return "\n".join(lines + [f"{event['status']}: {event['text']}" for event in result.sent])


def _read_task_model(folder: Path) -> FittedModel:
    return msgspec.json.decode((folder / TRAINED).read_bytes(), type=FittedModel)
