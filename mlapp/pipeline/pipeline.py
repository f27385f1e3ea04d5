"""The pipeline: a name, the columns' roles, and the user's functions by stage. It runs nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

from mlapp.config import Monitor
from mlapp.errors import DeclarationError
from mlapp.pipeline.decorators import (
    Decorator,
    FeatureLoaderDecorator,
    ModelDecorator,
    PredictorDecorator,
    ReaderDecorator,
    TaskDecorator,
    TransformerDecorator,
)
from mlapp.pipeline.definition import has_same_pipeline_definition, is_defined_in_file, is_redefinition
from mlapp.pipeline.schedule import Schedule
from mlapp.pipeline.stage import Role, Stage, make_stage
from mlapp.pipeline.stage_checks import check_stage_function
from mlapp.pipeline.stage_options import FeatureLoaderOptions, ModelOptions, PredictorOptions, TaskOptions

Options = TypeVar("Options", bound=TaskOptions)
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")


class Pipeline:
    """The declarations of an app.

    Args:
        name: the model's name in the store, in URLs and on clusters: letters, digits, `.`, `_` and `-`.
        target: the column or columns to predict; None for clustering and similar tasks.
        features: the only columns to use, in training and prediction; by default all except the target.
        predict: what the default predictor returns: `labels` for the model's own predictions, `proba` for the
            probability of each class by name.

    Raises:
        DeclarationError: the name is not valid in a folder name or URL, a target is also a feature, or `predict` is
            unknown.
    """

    def __init__(
        self,
        name: str,
        *,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        predict: Literal["labels", "proba"] = "labels",
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise DeclarationError(
                f"App name {name!r} cannot be used in folder names and URLs.",
                "Use letters, digits, '.', '_' and '-', at most 100, beginning and ending with a letter or digit.",
            )
        self.name = name
        self.target: str | tuple[str, ...] | None = (
            target if target is None or isinstance(target, str) else _list_pipeline_columns(name, "target", target)
        )
        self.features: tuple[str, ...] | None = (
            None if features is None else _list_pipeline_columns(name, "features", features)
        )
        overlap = set(self.targets) & set(self.features or ())
        if overlap:
            raise DeclarationError(
                f"App '{name}': '{min(overlap)}' is both a feature and the target.", "Take it out of features=[…]."
            )
        if predict not in ("labels", "proba"):
            raise DeclarationError(
                f"App '{name}': predict={predict!r} is not known.", "Use predict='labels' or predict='proba'."
            )
        self.prediction_kind = predict
        self.stages: dict[str, Stage] = {}
        self.callbacks: list[Stage] = []
        """The functions that `@app.on_predict` marks, in their order."""
        self.schedules: dict[str, Schedule] = {}
        self.data_reader = ReaderDecorator(self, "data_reader")
        self.data_loader = TaskDecorator(self, "data_loader")
        self.data_splitter = TaskDecorator(self, "data_splitter")
        self.data_parser = TaskDecorator(self, "data_parser")
        self.feature_transformer = TransformerDecorator(self, "feature_transformer")
        self.model = ModelDecorator(self, "model")
        self.trainer = TaskDecorator(self, "trainer")
        self.evaluator = TaskDecorator(self, "evaluator")
        self.saver = TaskDecorator(self, "saver")
        self.loader = Decorator(self, "loader")
        self.feature_loader = FeatureLoaderDecorator(self, "feature_loader")
        self.predictor = PredictorDecorator(self, "predictor")
        self.on_predict = Decorator(self, "on_predict")
        self.truth_reader = ReaderDecorator(self, "truth_reader")
        self.on_alarm = Decorator(self, "on_alarm")

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns: none, one or several."""
        if self.target is None:
            return ()
        return (self.target,) if isinstance(self.target, str) else self.target

    @property
    def model_options(self) -> ModelOptions:
        """The options of `@app.model`; the defaults if the app declares no model."""
        return self._find_pipeline_options("model", ModelOptions)

    @property
    def predictor_options(self) -> PredictorOptions:
        """The options of `@app.predictor`; the defaults if the app declares none."""
        return self._find_pipeline_options("predictor", PredictorOptions)

    @property
    def feature_loader_options(self) -> FeatureLoaderOptions:
        """The options of `@app.feature_loader`; the defaults if the app declares none."""
        return self._find_pipeline_options("feature_loader", FeatureLoaderOptions)

    @property
    def monitor_settings(self) -> Monitor:
        """The section `monitor:` of the app's project; the defaults for declarations without a project."""
        return Monitor()

    def _find_pipeline_options(self, role: str, kind: type[Options]) -> Options:
        stage = self.stages.get(role)
        return stage.options if stage is not None and isinstance(stage.options, kind) else kind()

    def declare(self, role: Role, function: Callable[..., Any], options: TaskOptions) -> None:
        """Register `function` in `role`. Registering it again (a notebook cell that runs twice) replaces it.

        Raises:
            DeclarationError: the signature or the kind of the function does not fit, or another function has the role.
        """
        stage = make_stage(role, function, has_target=self.target is not None, options=options)
        check_stage_function(stage)
        if role.name == "on_predict":
            self.callbacks = [
                each for each in self.callbacks if not has_same_pipeline_definition(each.function, function)
            ]
            self.callbacks.append(stage)
            self.stages[role.name] = self.callbacks[0]
            return
        if role.name == "predictor" and self.prediction_kind == "proba":
            raise DeclarationError(
                f"App '{self.name}' sets predict='proba' but has its own predictor: {stage.title}.",
                "Remove one of them: predict= applies to the default predictor.",
            )
        old = self.stages.get(role.name)
        if old is not None and not is_redefinition(old.function, function):
            raise DeclarationError(
                f"App '{self.name}' has two functions for {role.name}: {old.title} and {stage.title}.",
                "Keep one of them.",
            )
        self.stages[role.name] = stage

    def schedule(
        self,
        name: str | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        parameters: Mapping[str, Any] | None = None,
        time: str | None = None,
        promote_if: str | None = None,
        predict: bool = False,
        model: str | int = "latest",
    ) -> Schedule:
        """Train or predict on a schedule. The schedule starts with a deployment: `mlapp deploy --target flyte`.

        Args: see `Schedule`. The default name is `train` or `predict`.

        Raises:
            DeclarationError: both or neither of cron and every are given, one is invalid, or the name is taken.
        """
        name = name or ("predict" if predict else "train")
        schedule = Schedule(
            name, cron, every, {} if parameters is None else parameters, time, promote_if, predict, model
        )
        old = self.schedules.get(name)
        if old is not None and old != schedule and is_defined_in_file(sys._getframe(1)):
            raise DeclarationError(f"App '{self.name}' has two schedules called '{name}'.", "Give each a unique name.")
        self.schedules[name] = schedule
        return schedule

    def stage(self, role: str) -> Stage | None:
        """The user's function for a role; None if the default applies."""
        return self.stages.get(role)

    def require_stages(self, *roles: str) -> None:
        """Check that the stages without a default are declared.

        Raises:
            DeclarationError: names the missing decorator.
        """
        for role in roles:
            if role not in self.stages:
                raise DeclarationError(f"App '{self.name}' has no {role}.", f"Mark a function with @app.{role}.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def _list_pipeline_columns(app: str, parameter: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str):
        return (names,)
    columns = tuple(names) if isinstance(names, Iterable) else (None,)
    if not all(isinstance(name, str) for name in columns):
        raise DeclarationError(
            f"App '{app}': {parameter}={names!r} is neither a column's name nor a list of names.",
            "Name columns by strings: table.columns = table.columns.map(str).",
        )
    return columns
