"""Builds the model and binds the values of every stage from the given parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlapp import frameworks
from mlapp.frameworks import Framework
from mlapp.frameworks.framework import no_probabilities_error, will_have_method
from mlapp.pipeline import Pipeline, Stage, bind_pipeline_parameters
from mlapp.pipeline.parameters import bind_stage_parameters, list_open_parameter_stages, list_parameters
from mlapp.training import stage_calls

StageValues = dict[str, dict[str, Any]]


def build_model_and_bind_parameters(
    pipeline: Pipeline, parameters: Mapping[str, Any]
) -> tuple[Any, Framework, StageValues]:
    """Build the model, and bind the parameters of all stages.

    The framework's trainer also declares parameters, and only the built model shows which framework it is.

    Returns:
        The model, its framework, and stage → name → value.

    Raises:
        UsageError: an unknown parameter, or a value of the wrong type. UserCodeError: the model function raised.
        ModelError: the app asks for probabilities, and the model has none.
    """
    user_stages = [*pipeline.stages.values(), stage_calls.select_splitter(pipeline)]
    # Values of other stages are checked after the model is built.
    values = bind_stage_parameters(pipeline.stages["model"], list_parameters(user_stages), parameters)
    model = stage_calls.call_builder(pipeline, values)
    framework = frameworks.find_framework(type(model))
    if pipeline.prediction_kind == "proba" and not will_have_method(model, "predict_proba"):
        raise no_probabilities_error(model)
    stages = list_parameter_stages(pipeline, framework)
    bound = bind_pipeline_parameters(list_parameters(stages), parameters, list_open_parameter_stages(stages))
    model_values = bound.get("model", {})
    if model_values.keys() != values.keys():  # one of **kwargs is a parameter of the framework's trainer
        model = stage_calls.call_builder(pipeline, model_values)
    return model, framework, bound


def list_parameter_stages(pipeline: Pipeline, framework: Framework) -> list[Stage]:
    """The training stages that can have parameters; the framework's stages replace missing ones."""
    stages: list[Stage | None] = [
        pipeline.stage("data_reader"),
        stage_calls.select_splitter(pipeline),
        pipeline.stages["model"],
        stage_calls.select_evaluator(pipeline, framework),
        pipeline.stage("data_loader"),
        pipeline.stage("data_parser"),
        stage_calls.select_trainer(pipeline, framework),
    ]
    return [stage for stage in stages if stage is not None]


def infer_model_framework(pipeline: Pipeline) -> Framework:
    """The framework of the app's model, from the builder's annotation or from a model built with the defaults."""
    stage = pipeline.stages["model"]
    kind = stage.function if isinstance(stage.function, type) else stage.signature.return_annotation
    if isinstance(kind, type) and frameworks.find_framework(kind).name != "python":
        return frameworks.find_framework(kind)
    parameters = list_parameters([stage])
    if any(parameter.is_required for parameter in parameters):
        return frameworks.find_framework(object)
    return frameworks.find_framework(
        type(stage_calls.call_builder(pipeline, {parameter.name: parameter.default for parameter in parameters}))
    )
