"""Run a pipeline in this process: build → read → load → split → parse → transform → train → evaluate → check.

`Splits` parses and transforms: the first split before training, the others when they are evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from mlapp import frameworks
from mlapp.baseline.redaction import redact_schema
from mlapp.data.memory import return_free_memory
from mlapp.frameworks import Framework
from mlapp.model import TrainedModel, require_savable_model
from mlapp.pipeline import Pipeline, Stage, bind_pipeline_parameters
from mlapp.pipeline.feature_format import wants_batched_features
from mlapp.pipeline.parameters import Parameter, RecordedValue, flatten_parameters, list_parameters
from mlapp.progress import listen_progress
from mlapp.reporting import Reporter
from mlapp.schema import ModelSchema, Schema, infer_prediction_schema
from mlapp.schema.json_values import to_json_value
from mlapp.store import ModelVersion
from mlapp.training import continuation, defaults, ready_model, round_trip, stage_calls
from mlapp.training.binding import StageValues, build_model_and_bind_parameters, list_parameter_stages
from mlapp.training.json_round_trip import send_through_json
from mlapp.training.monitored_names import check_monitored_columns
from mlapp.training.raw_inputs import make_raw_inputs
from mlapp.training.reliability import Reliability, list_reliability_rows, predict_reliability_sample
from mlapp.training.sampling import sample_predictions
from mlapp.training.splits import Splits, identify_split_table
from mlapp.training.streaming import TrainingStream

FAST_SAMPLE = 0.5
"""Maximum seconds for the sample. A slower predictor predicts no further rows for the baseline."""


def run(
    pipeline: Pipeline,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: Reporter | None = None,
    previous: ModelVersion | None = None,
    must_be_savable: bool = False,
) -> TrainedModel:
    """Train a model.

    A trained model of an app without a data_reader is used unchanged.

    The model is built before the data is read, so that a wrong hyperparameter is reported at once.

    Args:
        parameters: by name, or `stage.name` where two stages share one.
        progress: called with the name of each step when it begins.
        previous: the version to continue training from, instead of a new model.
        must_be_savable: refuse a model that cannot be saved before the data is read. If False, it can still be trained
            and tried, for example in a notebook.

    Raises:
        DeclarationError: a stage is missing, or the model function or trainer returned None.
        ModelError: the model cannot continue `previous`, cannot be saved and loaded, or cannot predict a single row.
        UsageError: an unknown parameter, or a value of the wrong type.
        ConfigError: a column in `monitor:` is not a feature.
        DataError: no data, no target, metrics that are not numbers, or features that cannot be sent as JSON.
        UserCodeError: one of the user's functions raised.
    """
    report = progress or (lambda step: None)
    if previous is None and ready_model.has_ready_model(pipeline):
        return ready_model.adopt_ready_model(pipeline, parameters or {}, report, must_be_savable=must_be_savable)
    pipeline.require_stages("data_reader", "model")
    started, clock = datetime.now(timezone.utc), time.perf_counter()

    report("build")
    model, framework, bound, trainer = _build_checked_model(pipeline, parameters or {}, must_be_savable)
    recorded = flatten_parameters(bound, list_parameters(list_parameter_stages(pipeline, framework)))
    previous_model = (
        None if previous is None else continuation.load_previous_model(pipeline, model, framework, previous)
    )

    data = _read_training_data(pipeline, trainer, bound, report)
    check_monitored_columns(pipeline.monitor_settings, data.schema)
    if previous is not None:
        continuation.require_same_features_to_continue(previous, data.schema)
    sample = send_through_json(pipeline, framework, data.schema, data.sample)

    report("train")
    with listen_progress(lambda step_progress: report(f"train {step_progress}")):
        if previous_model is not None:
            trainer, model = continuation.continue_training(trainer, framework, model, previous_model, *data.first)
        estimator = stage_calls.call_trainer(trainer, model, *data.training, bound.get("trainer", {}))
    framework = frameworks.find_framework(type(estimator))

    report("evaluate")
    evaluator = stage_calls.select_evaluator(pipeline, framework)
    metrics, reliability = _evaluate_splits(evaluator, estimator, data, bound.get("evaluator", {}))

    report("check")
    predictions, cost = sample_predictions(pipeline, framework, estimator, sample.features)
    if cost < FAST_SAMPLE:
        baseline_predictions = predict_reliability_sample(pipeline, framework, estimator, data.baseline_sample)
    else:
        baseline_predictions = list_reliability_rows(predictions)
    fingerprint, rows, columns = data.identity
    trained = TrainedModel(
        pipeline=pipeline,
        estimator=estimator,
        framework=framework,
        parameters=recorded,
        metrics=metrics,
        schema=_make_model_schema(pipeline, data.schema, predictions),
        fingerprint=fingerprint,
        rows=rows,
        columns=columns,
        started=started,
        duration=time.perf_counter() - clock,
        parent=None if previous is None else previous.version,
        baseline=reliability.complete_baseline(data.baseline, baseline_predictions, pipeline.monitor_settings.columns),
    )
    return replace(
        trained,
        batching=round_trip.check_model_round_trip(
            trained, sample, predictions, cost, must_be_savable=must_be_savable, report=report
        ),
    )


def _build_checked_model(
    pipeline: Pipeline, parameters: Mapping[str, Any], must_be_savable: bool
) -> tuple[Any, Framework, StageValues, Stage | None]:
    """The model, its framework, the values of all stages, and the trainer, with all checks that need no data."""
    model, framework, bound = build_model_and_bind_parameters(pipeline, parameters)
    require_savable_model(pipeline, framework, model, must_be_savable)
    stage_calls.require_predict(pipeline, framework, model)
    trainer = stage_calls.select_trainer(pipeline, framework)
    stage_calls.check_trainer_parameters(trainer, framework, bound.get("trainer", {}))
    return model, framework, bound, trainer


def _read_training_data(
    pipeline: Pipeline,
    trainer: Stage | None,
    bound: Mapping[str, Mapping[str, Any]],
    report: Reporter,
) -> Splits | TrainingStream:
    """The reader's data: as a stream if the trainer takes iterators, otherwise split."""
    report("read")
    data = stage_calls.call_reader(pipeline, bound.get("data_reader", {}))
    if isinstance(data, Iterator) and wants_batched_features(trainer) and pipeline.stage("data_loader") is None:
        return TrainingStream(pipeline, data, bound)
    table = stage_calls.call_loader(pipeline, data, bound.get("data_loader", {}))
    del data
    identity = identify_split_table(table)
    report("split")
    splits = stage_calls.call_splitter(pipeline, table, bound.get("data_splitter", {}))
    del table
    return_free_memory()
    return Splits(pipeline, splits, identity, bound)


def _make_model_schema(pipeline: Pipeline, features: Schema, predictions: Any) -> ModelSchema:
    """The schema of the version, without values of the features that `monitor.columns` redacts."""
    redacted = redact_schema(features, pipeline.monitor_settings.columns)
    return ModelSchema(
        features=redacted,
        predictions=infer_prediction_schema(predictions),
        inputs=make_raw_inputs(pipeline, redacted),
    )


def _evaluate_splits(
    evaluator: Stage, estimator: Any, data: Splits | TrainingStream, parameters: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], Reliability]:
    """The metrics of each split, and the reliability of the model."""
    metrics = {}
    reliability = Reliability(evaluator, estimator, parameters)
    for name, features, target in data.iterate_splits():
        metrics[name] = stage_calls.call_evaluator(evaluator, estimator, features, target, parameters)
        reliability.add_split(name, features, target)
        del features, target  # free the memory before the next split
    return metrics, reliability


def read_training_table(pipeline: Pipeline, parameters: Mapping[str, Any] | None = None) -> Any:
    """Read and load the data: the result of the data_loader.

    Raises:
        UsageError: a parameter that no stage takes. DataError: no data. UserCodeError: a stage raised.
    """
    pipeline.require_stages("data_reader")
    roles = ("data_reader", "data_loader")
    bound = bind_pipeline_parameters(
        list_parameters(stage for role in roles if (stage := pipeline.stage(role))), parameters or {}
    )
    data = stage_calls.call_reader(pipeline, bound.get("data_reader", {}))
    return stage_calls.call_loader(pipeline, data, bound.get("data_loader", {}))


def read_features(
    pipeline: Pipeline, parameters: Mapping[str, Any] | None = None, *, trained_with: Mapping[str, Any] | None = None
) -> Any:
    """The features of the data_reader's result, for batch prediction.

    A target column is optional: new data has none.

    Args:
        parameters: parameters of the reader, the loader and the parser, as for training.
        trained_with: the parameters of the version's training. The loader and the parser use them unless `parameters`
            overrides them, so that a parser scales as in training. The reader does not, because it reads other rows.

    Raises:
        UsageError: a parameter that no stage takes. DataError: no data. UserCodeError: a stage raised.
    """
    pipeline.require_stages("data_reader")
    stages = [stage for role in ("data_reader", "data_loader", "data_parser") if (stage := pipeline.stage(role))]
    declared_parameters = list_parameters(stages)
    bound = bind_pipeline_parameters(
        declared_parameters,
        {
            **_select_recorded_training_values(declared_parameters, trained_with or {}, parameters or {}),
            **(parameters or {}),
        },
    )
    data = stage_calls.call_reader(pipeline, bound.get("data_reader", {}))
    table = stage_calls.call_loader(pipeline, data, bound.get("data_loader", {}))
    if pipeline.stage("data_parser") is not None or not hasattr(table, "columns"):
        return stage_calls.call_parser(pipeline, table, bound.get("data_parser", {}))[0]
    if pipeline.features is not None:
        return defaults.convert_decimals_to_floats(defaults.parse_default_table(table, pipeline.features, None)[0])
    return defaults.convert_decimals_to_floats(
        table.drop(columns=[name for name in pipeline.targets if name in table.columns])
    )


def _select_recorded_training_values(
    declared_parameters: list[Parameter], trained_with: Mapping[str, Any], current_values: Mapping[str, Any]
) -> dict[str, Any]:
    """The loader's and parser's values in training, by full name, unless overridden now or equal to the default."""
    values = {}
    for parameter in declared_parameters:
        names = (parameter.full_name, f"{parameter.stage.partition('_')[2]}.{parameter.name}", parameter.name)
        name = next((name for name in names if name in trained_with), None)
        if parameter.stage == "data_reader" or name is None or any(each in current_values for each in names):
            continue
        value = trained_with[name]
        if to_json_value(value.value if isinstance(value, RecordedValue) else value) != to_json_value(
            parameter.default
        ):
            values[parameter.full_name] = value
    return values
