"""Evaluates a stored version on data outside its training splits, with the app's evaluator."""

from __future__ import annotations

from typing import Any

from mlapp import frameworks
from mlapp.pipeline import Pipeline, bind_pipeline_parameters
from mlapp.pipeline.parameters import RecordedValue, list_parameters
from mlapp.prediction import load_predictor
from mlapp.store import ModelVersion
from mlapp.training import stage_calls


def evaluate_stored_version(pipeline: Pipeline, version: ModelVersion, table: Any) -> dict[str, float]:
    """The metrics of a version on a table.

    The parser and the evaluator get the parameters of the version's training. Nothing is stored.

    Args:
        table: with training's columns and the target, as the data_loader returns it.

    Raises:
        DataError: a column is missing. InputError: a value does not fit the version's schema.
        ModelError, StoreError: the version cannot be loaded. UserCodeError: a function of the app raised.
    """
    predictor = load_predictor(pipeline, version)
    evaluator = stage_calls.select_evaluator(pipeline, frameworks.get_framework(version.manifest.framework))
    parser = pipeline.stage("data_parser")
    declared = list_parameters([evaluator] if parser is None else [parser, evaluator])
    names = {name for parameter in declared for name in (parameter.name, parameter.full_name)}
    recorded = {name: RecordedValue(value) for name, value in version.manifest.parameters.items() if name in names}
    bound = bind_pipeline_parameters(declared, recorded)
    features, target = stage_calls.call_parser(pipeline, table, bound.get("data_parser", {}))
    transformed = stage_calls.call_transformer(pipeline, predictor.check(features))
    return stage_calls.call_evaluator(evaluator, predictor.estimator, transformed, target, bound.get("evaluator", {}))
