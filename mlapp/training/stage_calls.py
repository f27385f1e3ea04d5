"""One function per stage, which calls the user's or the default function and checks the result.

Each can run on its own, in this process or as a task on a cluster, because its arguments contain everything it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlapp import frameworks
from mlapp.errors import DataError, DeclarationError, MlappError, UserCodeError, translate_user_errors
from mlapp.frameworks import Framework
from mlapp.pipeline import Pipeline, Stage
from mlapp.pipeline.feature_format import convert_features_to_array, wants_array_features, wants_batched_features
from mlapp.pipeline.stage import ROLES
from mlapp.pipeline.stage_options import DefaultOptions
from mlapp.schema.feature_containers import count_feature_rows
from mlapp.schema.infer import refuse_equal_columns
from mlapp.training import defaults, seeds
from mlapp.training.fit_advice import advise_on_fit_error
from mlapp.training.row_order import require_row_order

log = logging.getLogger("mlapp")
Values = Mapping[str, Any]


def call_reader(pipeline: Pipeline, parameters: Values) -> Any:
    """The result of the data_reader.

    Raises:
        DataError: it returned nothing. UserCodeError: it raised.
    """
    stage = pipeline.stages["data_reader"]
    data = call_stage(stage, **parameters)
    if data is None:
        raise DataError(f"{stage.title} returned None.", "Return the data: a DataFrame, a list of dicts, …")
    return data


def call_loader(pipeline: Pipeline, data: Any, parameters: Values) -> Any:
    """The table, by the data_loader or the default one.

    Raises:
        DataError: it is empty, or not a table. UserCodeError: the loader raised.
    """
    stage = pipeline.stage("data_loader")
    source = stage or pipeline.stages["data_reader"]
    if stage is not None:
        table = call_stage(stage, data, **parameters)
    else:
        try:
            with translate_user_errors(source.title):  # a reader that is a generator runs only here
                table = defaults.load_default_table(data)
                refuse_equal_columns(table)
        except DataError as error:
            raise DataError(f"{source.title}: {error.what}", error.todo) from error
    if table is None:
        raise DataError(f"{source.title} returned None.", "Return a table.")
    if _is_empty_stage_result(table):
        raise DataError(f"{source.title} returned no rows.", "Check its source and its parameters.")
    return table


def call_splitter(pipeline: Pipeline, table: Any, parameters: Values) -> dict[str, Any]:
    """Named splits; the first is the training data.

    Raises:
        DataError: not a dict of splits, or an empty one. UserCodeError: the splitter raised.
    """
    stage = pipeline.stage("data_splitter")
    if stage is None:
        if not hasattr(table, "iloc"):
            return {"train": table}
        _check_stage_call_targets(pipeline, table)
        return dict(defaults.split_default_table(table, pipeline.targets, **parameters))
    with seeds.fix_seeds():
        splits = call_stage(stage, table, **parameters)
    if isinstance(splits, (tuple, list)) and len(splits) == 2:
        splits = {"train": splits[0], "test": splits[1]}
    if not isinstance(splits, Mapping) or not splits:
        raise DataError(
            f"{stage.title} returned a {type(splits).__name__}, not the splits of the data.",
            'Return {"train": …, "test": …}, or the two as a tuple.',
        )
    for name, part in splits.items():
        if part is None or _is_empty_stage_result(part):
            raise DataError(f"{stage.title}: split '{name}' is empty.", "Leave the split out, or give it rows.")
    return dict(splits)


def call_parser(pipeline: Pipeline, part: Any, parameters: Values) -> tuple[Any, Any]:
    """Features and target of one split, with exact decimals as floats; the target is None for an app without one.

    Raises:
        DataError: a column is missing, or the parser did not return a pair. UserCodeError: the parser raised.
    """
    stage = pipeline.stage("data_parser")
    if stage is not None:
        parsed = call_stage(stage, part, **parameters)
        if not isinstance(parsed, (tuple, list)) or len(parsed) != 2:
            raise DataError(
                f"{stage.title} returned a {type(parsed).__name__}, not a pair.", "Return (features, target)."
            )
        features, target = parsed
        names = list(pipeline.features or ())
        if names and hasattr(features, "columns"):
            features = features[names]
        return defaults.convert_decimals_to_floats(features), defaults.convert_decimals_to_floats(target)
    if not hasattr(part, "columns"):
        raise DataError(
            f"A split of app '{pipeline.name}' is a {type(part).__name__}, not a table.",
            "Write an @app.data_parser that returns (features, target).",
        )
    features, target = defaults.parse_default_table(part, pipeline.features, pipeline.target)
    return defaults.convert_decimals_to_floats(features), defaults.convert_decimals_to_floats(target)


def call_transformer(pipeline: Pipeline, features: Any) -> Any:
    """The features after the feature_transformer.

    Raises:
        DataError: the transformer returned nothing, or another number of rows. UserCodeError: it raised.
    """
    stage = pipeline.stage("feature_transformer")
    if stage is None:
        return features
    transformed = call_stage(stage, convert_features_to_array(features) if wants_array_features(stage) else features)
    if transformed is None:
        raise DataError(f"{stage.title} returned None.", "Return the transformed features.")
    rows_before, rows_after = count_feature_rows(features), count_feature_rows(transformed)
    if rows_before is not None and rows_after is not None and rows_before != rows_after:
        raise DataError(
            f"{stage.title} returned {rows_after} rows for {rows_before} input rows.",
            "Return one row for each input row.",
        )
    require_row_order(features, transformed, stage.title)
    return transformed


def call_builder(pipeline: Pipeline, parameters: Values) -> Any:
    """The model, unfitted unless the app declares it trained.

    Raises:
        DeclarationError: the function returned None, or the model's file does not exist. ModelError: the file cannot be
            read. UserCodeError: the function raised.
    """
    stage = pipeline.stages["model"]
    options = pipeline.model_options
    if (file := options.file) is not None:
        if not file.is_file():
            raise DeclarationError(
                f"App '{pipeline.name}': the model file '{file}' does not exist.",
                "Give app.model a path that exists, from the project's folder.",
            )
        return frameworks.find_framework_for_file(file).load_file(file, options.trusted)
    with seeds.fix_seeds():
        model = call_stage(stage, **parameters)
    if model is None:
        raise DeclarationError(f"{stage.title} returned None.", "Return the model.")
    return model


def select_trainer(pipeline: Pipeline, framework: Framework) -> Stage | None:
    """The user's or the framework's trainer; None for a model that is already trained."""
    if pipeline.model_options.is_trained:
        return None
    return pipeline.stage("trainer") or _make_default_stage(pipeline, "trainer", framework)


def select_evaluator(pipeline: Pipeline, framework: Framework) -> Stage:
    """The user's or the framework's evaluator."""
    return pipeline.stage("evaluator") or _make_default_stage(pipeline, "evaluator", framework)


def select_splitter(pipeline: Pipeline) -> Stage:
    """The user's splitter, or the default one with its `test_size`, `shuffle` and `random_state`."""
    return pipeline.stage("data_splitter") or Stage(ROLES["data_splitter"], defaults.split_default_table, 2)


def check_trainer_parameters(stage: Stage | None, framework: Framework, parameters: Values) -> None:
    """Check the parameters of the framework's own trainer, before data is read.

    Raises:
        UsageError: an invalid parameter.
    """
    if stage is not None and stage.is_framework_default:
        framework.check(parameters)


def require_predict(pipeline: Pipeline, framework: Framework, model: Any) -> None:
    """Check, before data is read, that the model has the method that the default predictor calls.

    Raises:
        ModelError: the method is missing.
    """
    if pipeline.stage("predictor") is None and pipeline.stage("trainer") is None:
        framework.require_predict(model, gives_probabilities=pipeline.prediction_kind == "proba")


def call_trainer(stage: Stage | None, model: Any, features: Any, target: Any, parameters: Values) -> Any:
    """The fitted model.

    Raises:
        DeclarationError: the trainer returned nothing. UserCodeError: it raised.
        DataError: the framework's trainer does not accept the data.
    """
    if stage is None:
        return model
    if wants_batched_features(stage) and not isinstance(features, Iterator):
        features, target = iter([features]), iter([target])
    try:
        with seeds.fix_seeds():
            estimator = call_stage(stage, model, convert_stage_features(stage, features), target, **parameters)
    except UserCodeError as error:
        cause = error.__cause__ or error
        advice = advise_on_fit_error(cause, model, features, target)
        if advice is None:
            raise
        raise UserCodeError(stage.title, cause, advice=advice) from cause
    except DataError as error:
        if not stage.is_framework_default:
            raise
        raise DataError(f"{stage.title}: {error.what}", error.todo) from error
    if estimator is None:
        raise DeclarationError(f"{stage.title} returned None.", "Return the fitted model.")
    return estimator


def call_evaluator(stage: Stage, estimator: Any, features: Any, target: Any, parameters: Values) -> dict[str, float]:
    """The metrics of one split; a single number is named `score`.

    If the framework's own metrics cannot be computed, a warning replaces them: the model is fitted, and training can
    have taken hours.

    Raises:
        DataError: not a float or a dict of floats. UserCodeError: the evaluator raised.
    """
    try:
        with seeds.fix_seeds():
            result = call_stage(stage, estimator, convert_stage_features(stage, features), target, **parameters)
    except MlappError as error:
        if not stage.is_framework_default:
            raise
        reason = " ".join(error.what.split()).rstrip(".")
        log.warning("No metrics: %s. Write an @app.evaluator that measures the model.", reason)
        return {}
    metrics = result if isinstance(result, Mapping) else {"score": result}
    try:
        return {str(name): _convert_evaluator_metric(value) for name, value in metrics.items()}
    except (TypeError, ValueError):
        raise DataError(
            f"{stage.title} returned {result!r:.80}, which is not a metric.",
            "Return a float or a dict of floats, such as {'accuracy': 0.9}.",
        ) from None


def call_stage(stage: Stage, *data: Any, **parameters: Any) -> Any:
    """Call a stage's function, and translate its errors to one that names the function and the user's line.

    Raises:
        UserCodeError: the function raised. An MlappError is raised unchanged.
    """
    with translate_user_errors(stage.title):
        return stage(*data, **parameters)


def iterate_stage_items(stage: Stage, items: Iterable[Any]) -> Iterator[Any]:
    """The items that a stage yields. A generator's code runs only here, so this function translates its errors.

    Raises:
        UserCodeError: the stage raised. An MlappError is raised unchanged.
    """
    iterator, end = iter(items), object()
    while True:
        with translate_user_errors(stage.title):
            item = next(iterator, end)
        if item is end:
            return
        yield item


def _make_default_stage(pipeline: Pipeline, role: str, framework: Framework) -> Stage:
    # A framework's stage takes any format. It gets the one that the model gets in serving.
    options = DefaultOptions(
        framework=framework.name,
        takes_array=wants_array_features(pipeline.stage("predictor")),
        model=pipeline.stages["model"].title,
    )
    return Stage(ROLES[role], getattr(framework, role), 3, options)


def convert_stage_features(stage: Stage, features: Any) -> Any:
    """Features in the format that a stage takes: a DataFrame or an array."""
    takes_array = isinstance(stage.options, DefaultOptions) and stage.options.takes_array
    return convert_features_to_array(features) if takes_array or wants_array_features(stage) else features


def _is_empty_stage_result(table: Any) -> bool:
    return len(table) == 0 if isinstance(table, Mapping) else count_feature_rows(table) == 0


def _convert_evaluator_metric(value: Any) -> float:
    if isinstance(value, (str, bytes, bool)) or value is None:
        raise TypeError
    return float(value)


def _check_stage_call_targets(pipeline: Pipeline, table: Any) -> None:
    """Check, before anything is fitted, that each target exists, has no missing values and is not constant."""
    if pipeline.stage("data_parser") is not None:
        return
    reader = pipeline.stages["data_reader"]
    for name in pipeline.targets:
        if name not in table.columns:
            defaults.parse_default_table(table, None, name)
        if all(part.nunique(dropna=False) < 2 for part in (table[name].head(1000), table[name])):
            raise DataError(
                f"Target '{name}' has the same value in all {len(table)} rows of {reader.title}: nothing to learn.",
                "Read data with at least two values, or choose another target.",
            )
        if missing := int(table[name].isna().sum()):
            raise DataError(
                f"Target '{name}' is missing in {missing} of {len(table)} rows of {reader.title}.",
                f"Leave these rows out in the data_reader: .dropna(subset=['{name}']).",
            )
