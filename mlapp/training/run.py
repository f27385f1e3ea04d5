"""Run a pipeline in this process: read → load → split → parse → transform → fit → evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from mlapp import frameworks, prediction
from mlapp.model import TrainedModel, saved_format
from mlapp.pipeline import Pipeline, Stage, bind
from mlapp.pipeline.form import wants_batches
from mlapp.pipeline.parameters import declared, flat
from mlapp.progress import listening
from mlapp.schema import ModelSchema, infer_predictions
from mlapp.store import ModelVersion
from mlapp.training import continuation, defaults, steps
from mlapp.training.binding import build_and_bind, parameter_stages
from mlapp.training.splits import Splits, identify
from mlapp.training.streaming import Stream

Progress = Callable[[str], None]


def run(
    pipeline: Pipeline,
    parameters: Mapping[str, Any] | None = None,
    *,
    progress: Progress | None = None,
    previous: ModelVersion | None = None,
) -> TrainedModel:
    """Train a model.

    The model is built before the data is read: a wrong hyperparameter is an error at once, not after a long read.

    Args:
        parameters: by name, or `stage.name` where two stages share one.
        progress: called with the name of each step as it begins.
        previous: the version whose model goes on learning, in the place of one that begins.

    Raises:
        DeclarationError: a stage is missing, or returned nothing of use.
        ModelError: the model cannot go on from `previous`.
        UsageError: an unknown parameter, or a value of the wrong type.
        DataError: empty data, no target, metrics that are no numbers.
        UserCodeError: one of the user's functions raised.
    """
    tell = progress or (lambda step: None)
    pipeline.require("data_reader", "model")
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    values = dict(parameters or {})

    tell("build")
    model, framework, bound = build_and_bind(pipeline, values)
    recorded = flat(bound, declared(parameter_stages(pipeline, framework)))
    saved_format(pipeline, framework)
    trainer, evaluator = steps.fit_stage(pipeline, framework), steps.evaluate_stage(pipeline, framework)
    steps.check(trainer, framework, bound.get("trainer", {}))
    begun = None if previous is None else continuation.load(pipeline, model, framework, previous)

    data = _data(pipeline, trainer, bound, tell)
    if previous is not None:
        continuation.require_same_features(previous, data.schema)

    tell("train")
    with listening(lambda reached: tell(f"train {reached}")):
        if begun is not None:
            trainer, model = continuation.proceed(trainer, framework, model, begun, *data.first)
        estimator = steps.fit(trainer, model, *data.training, bound.get("trainer", {}))
    framework = frameworks.of(type(estimator))

    tell("evaluate")
    metrics = {}
    for name, features, target in data.evaluated():
        metrics[name] = steps.evaluate(evaluator, estimator, features, target, bound.get("evaluator", {}))
        del features, target  # before the next split is taken

    predictions = prediction.sample(pipeline, framework, estimator, data.sample)
    fingerprint, rows, columns = data.identity
    return TrainedModel(
        pipeline=pipeline,
        estimator=estimator,
        framework=framework,
        parameters=recorded,
        metrics=metrics,
        schema=ModelSchema(features=data.schema, predictions=infer_predictions(predictions)),
        fingerprint=fingerprint,
        rows=rows,
        columns=columns,
        started=started,
        duration=time.perf_counter() - clock,
        parent=None if previous is None else previous.version,
    )


def _data(
    pipeline: Pipeline, trainer: Stage | None, bound: Mapping[str, Mapping[str, Any]], tell: Progress
) -> Splits | Stream:
    """What the reader gives: part after part where it yields them to a trainer that takes parts, else split at once."""
    tell("read")
    read = steps.read(pipeline, bound.get("data_reader", {}))
    if isinstance(read, Iterator) and wants_batches(trainer) and pipeline.stage("data_loader") is None:
        return Stream(pipeline, read, bound)
    table = steps.load(pipeline, read, bound.get("data_loader", {}))
    del read
    identity = identify(table)
    tell("split")
    splits = steps.split(pipeline, table, bound.get("data_splitter", {}))
    del table
    return Splits(pipeline, splits, identity, bound)


def read_table(pipeline: Pipeline, parameters: Mapping[str, Any] | None = None) -> Any:
    """What the data_loader makes of what the data_reader reads.

    Raises:
        UsageError: a parameter that neither takes. DataError: no data. UserCodeError: one of them raised.
    """
    pipeline.require("data_reader")
    roles = ("data_reader", "data_loader")
    bound = bind(declared(stage for role in roles if (stage := pipeline.stage(role))), parameters or {})
    data = steps.read(pipeline, bound.get("data_reader", {}))
    return steps.load(pipeline, data, bound.get("data_loader", {}))


def read_features(pipeline: Pipeline, parameters: Mapping[str, Any] | None = None) -> Any:
    """The features of what the data_reader gives for its own parameters, for a prediction over all of them.

    A target column may be there or not: tomorrow's data has none.

    Raises:
        UsageError: a parameter that neither reader nor loader takes. DataError: no data.
    """
    table = read_table(pipeline, parameters)
    parser = pipeline.stage("data_parser")
    if parser is not None or not hasattr(table, "columns"):
        values = bind(declared([parser] if parser else []), {}).get("data_parser", {})
        return steps.parse(pipeline, table, values)[0]
    if pipeline.features is not None:
        return defaults.floats(defaults.parse(table, pipeline.features, None)[0])
    return defaults.floats(table.drop(columns=[name for name in pipeline.targets if name in table.columns]))
