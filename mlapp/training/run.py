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
from mlapp.model import TrainedModel, require_savable_model
from mlapp.pipeline import Pipeline, Stage, bind_pipeline_parameters
from mlapp.pipeline.feature_format import wants_batched_features
from mlapp.pipeline.parameters import Parameter, Recorded, flatten_parameters, list_parameters
from mlapp.progress import listen_progress
from mlapp.reporting import Reporter
from mlapp.schema import ModelSchema, infer_prediction_schema
from mlapp.schema.json_values import to_json_value
from mlapp.store import ModelVersion
from mlapp.training import continuation, defaults, ready_model, round_trip, stage_calls
from mlapp.training.binding import build_and_bind, list_parameter_stages
from mlapp.training.json_round_trip import send_through_json
from mlapp.training.monitored_names import check_monitored_columns
from mlapp.training.raw_inputs import make_raw_inputs
from mlapp.training.reliability import Reliability, list_reliability_rows, predict_reliability_sample
from mlapp.training.sampling import sample_predictions
from mlapp.training.splits import Splits, identify_split_table
from mlapp.training.streaming import TrainingStream

FAST_SAMPLE = 0.5
"""Seconds: a predictor that takes longer for the first rows does not predict more of them for the baseline."""


def run(
    pipeline: Pipeline,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: Reporter | None = None,
    previous: ModelVersion | None = None,
    to_keep: bool = False,
) -> TrainedModel:
    """Train a model.

    A trained model of an app without a data_reader is used unchanged.

    The model is built before the data is read, so that a wrong hyperparameter is reported at once.

    Args:
        parameters: by name, or `stage.name` where two stages share one.
        progress: called with the name of each step when it begins.
        previous: the version to continue training from, instead of a new model.
        to_keep: the model becomes a version. A class without a format, or one that cannot be pickled, is refused before
            the data is read. If False, it can be trained and tried, for example in a notebook.

    Raises:
        DeclarationError: a stage is missing, or returned nothing usable.
        ModelError: the model cannot continue `previous`, cannot be saved and loaded, or cannot predict a row alone.
        UsageError: an unknown parameter, or a value of the wrong type.
        ConfigError: a column in `monitor:` is no feature.
        DataError: empty data, no target, metrics that are not numbers, features that cannot be sent as JSON.
        UserCodeError: a function of the user raised.
    """
    tell = progress or (lambda step: None)
    if previous is None and ready_model.has_ready_model(pipeline):
        return ready_model.adopt_ready_model(pipeline, parameters or {}, tell, to_keep=to_keep)
    pipeline.require_stages("data_reader", "model")
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    values = dict(parameters or {})

    tell("build")
    model, framework, bound = build_and_bind(pipeline, values)
    recorded = flatten_parameters(bound, list_parameters(list_parameter_stages(pipeline, framework)))
    require_savable_model(pipeline, framework, model, to_keep)
    stage_calls.require_predict(pipeline, framework, model)
    trainer = stage_calls.select_trainer(pipeline, framework)
    stage_calls.check_trainer_parameters(trainer, framework, bound.get("trainer", {}))
    begun = None if previous is None else continuation.load_previous_model(pipeline, model, framework, previous)

    monitor = pipeline.monitor_settings
    data = _read_training_data(pipeline, trainer, bound, tell)
    check_monitored_columns(monitor, data.schema)
    if previous is not None:
        continuation.require_same_features_to_continue(previous, data.schema)
    sample = send_through_json(pipeline, framework, data.schema, data.sample)

    tell("train")
    with listen_progress(lambda reached: tell(f"train {reached}")):
        if begun is not None:
            trainer, model = continuation.continue_training(trainer, framework, model, begun, *data.first)
        estimator = stage_calls.call_trainer(trainer, model, *data.training, bound.get("trainer", {}))
    framework = frameworks.find_framework(type(estimator))

    tell("evaluate")
    evaluator = stage_calls.select_evaluator(pipeline, framework)
    metrics, reliability = _evaluate_splits(evaluator, estimator, data, bound.get("evaluator", {}))

    tell("check")
    predictions, cost = sample_predictions(pipeline, framework, estimator, sample.features)
    is_fast = cost < FAST_SAMPLE
    baseline = reliability.complete(
        data.baseline,
        predict_reliability_sample(pipeline, framework, estimator, data.baseline_sample)
        if is_fast
        else list_reliability_rows(predictions),
        monitor.columns,
    )
    schema = redact_schema(data.schema, monitor.columns)
    fingerprint, rows, columns = data.identity
    trained = TrainedModel(
        pipeline=pipeline,
        estimator=estimator,
        framework=framework,
        parameters=recorded,
        metrics=metrics,
        schema=ModelSchema(
            features=schema,
            predictions=infer_prediction_schema(predictions),
            inputs=make_raw_inputs(pipeline, schema),
        ),
        fingerprint=fingerprint,
        rows=rows,
        columns=columns,
        started=started,
        duration=time.perf_counter() - clock,
        parent=None if previous is None else previous.version,
        baseline=baseline,
    )
    return replace(
        trained,
        batching=round_trip.check_model_round_trip(trained, sample, predictions, cost, to_keep=to_keep, tell=tell),
    )


def _read_training_data(
    pipeline: Pipeline,
    trainer: Stage | None,
    bound: Mapping[str, Mapping[str, Any]],
    tell: Reporter,
) -> Splits | TrainingStream:
    """The reader's data: in parts for a trainer that takes parts, otherwise split."""
    tell("read")
    read = stage_calls.call_reader(pipeline, bound.get("data_reader", {}))
    if isinstance(read, Iterator) and wants_batched_features(trainer) and pipeline.stage("data_loader") is None:
        return TrainingStream(pipeline, read, bound)
    table = stage_calls.call_loader(pipeline, read, bound.get("data_loader", {}))
    del read
    identity = identify_split_table(table)
    tell("split")
    splits = stage_calls.call_splitter(pipeline, table, bound.get("data_splitter", {}))
    del table
    return_free_memory()
    return Splits(pipeline, splits, identity, bound)


def _evaluate_splits(
    evaluator: Stage, estimator: Any, data: Splits | TrainingStream, parameters: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], Reliability]:
    """The metrics of each split, and the predictions that tell how reliable the model is."""
    metrics = {}
    reliability = Reliability(evaluator, estimator, parameters)
    for name, features, target in data.iterate_splits():
        metrics[name] = stage_calls.call_evaluator(evaluator, estimator, features, target, parameters)
        reliability.add(name, features, target)
        del features, target  # before the next split is taken
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
        parameters: those of the reader, the loader and the parser, as for training.
        trained_with: the parameters of the version's training. The loader and the parser use them where
            `parameters` has none, so that a parser scales as in training. The reader does not: it reads other rows.

    Raises:
        UsageError: a parameter that no stage takes. DataError: no data. UserCodeError: a stage raised.
    """
    pipeline.require_stages("data_reader")
    stages = [stage for role in ("data_reader", "data_loader", "data_parser") if (stage := pipeline.stage(role))]
    known = list_parameters(stages)
    bound = bind_pipeline_parameters(
        known, {**_remember_training_run_values(known, trained_with or {}, parameters or {}), **(parameters or {})}
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


def _remember_training_run_values(
    known: list[Parameter], trained_with: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of the loader and the parser in training, by full name, except those given now or left at default."""
    found = {}
    for parameter in known:
        names = (parameter.full_name, f"{parameter.stage.partition('_')[2]}.{parameter.name}", parameter.name)
        name = next((name for name in names if name in trained_with), None)
        if parameter.stage == "data_reader" or name is None or any(each in given for each in names):
            continue
        value = trained_with[name]
        if to_json_value(value.value if isinstance(value, Recorded) else value) != to_json_value(parameter.default):
            found[parameter.full_name] = value
    return found
