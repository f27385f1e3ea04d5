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

Bound = dict[str, dict[str, Any]]


def build_and_bind(pipeline: Pipeline, given: Mapping[str, Any]) -> tuple[Any, Framework, Bound]:
    """The model, its framework, and every stage's values.

    The framework's trainer declares parameters too, and the framework is known only from the built model.

    Raises:
        UsageError: an unknown parameter, or a value of the wrong type. UserCodeError: the model function raised.
        ModelError: the app asks for probabilities, and the model has none.
    """
    users = [*pipeline.stages.values(), stage_calls.select_splitter(pipeline)]
    # The other values are checked after the model is built.
    values = bind_stage_parameters(pipeline.stages["model"], list_parameters(users), given)
    model = stage_calls.call_builder(pipeline, values)
    framework = frameworks.find_framework(type(model))
    if pipeline.predict_what == "proba" and not will_have_method(model, "predict_proba"):
        raise no_probabilities_error(model)
    stages = list_parameter_stages(pipeline, framework)
    bound = bind_pipeline_parameters(list_parameters(stages), given, list_open_parameter_stages(stages))
    own = bound.get("model", {})
    if own.keys() != values.keys():  # one of **kwargs is a parameter of the framework's trainer
        model = stage_calls.call_builder(pipeline, own)
    return model, framework, bound


def list_parameter_stages(pipeline: Pipeline, framework: Framework) -> list[Stage]:
    """The training stages whose signatures hold parameters; the framework's stages replace absent ones."""
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
    """The framework of the app's model: from the builder's annotation, otherwise by building it with its defaults."""
    stage = pipeline.stages["model"]
    kind = stage.function if isinstance(stage.function, type) else stage.signature.return_annotation
    if isinstance(kind, type) and frameworks.find_framework(kind).name != "python":
        return frameworks.find_framework(kind)
    own = list_parameters([stage])
    if any(parameter.is_required for parameter in own):
        return frameworks.find_framework(object)
    return frameworks.find_framework(
        type(stage_calls.call_builder(pipeline, {parameter.name: parameter.default for parameter in own}))
    )
