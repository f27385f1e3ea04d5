"""Search spaces: `Search` annotations, `Literal` and `bool`."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlapp.errors import DeclarationError, UsageError
from mlapp.pipeline import Pipeline
from mlapp.pipeline.annotations import strip_annotated
from mlapp.pipeline.parameters import Parameter, list_parameters
from mlapp.pipeline.search import Search

IMPLICIT_STAGES = ("model", "trainer")
"""Stages in which `Literal` and `bool` parameters are searched. In other stages, only those with a `Search` are."""


@dataclass(frozen=True)
class Space:
    """One parameter with its possible numbers or choices."""

    parameter: Parameter
    choices: tuple[Any, ...] | None = None
    numbers: Search | None = None

    @property
    def name(self) -> str:
        return self.parameter.full_name

    @property
    def example(self) -> Any:
        """One possible value."""
        if self.choices is not None:
            return self.choices[0]
        assert self.numbers is not None
        return int(self.numbers.low) if strip_annotated(self.parameter.kind) is int else self.numbers.low

    def suggest_value(self, trial: Any) -> Any:
        """A value for an Optuna trial."""
        if self.choices is not None:
            return trial.suggest_categorical(self.name, self.choices)
        assert self.numbers is not None
        low, high, step = self.numbers.low, self.numbers.high, self.numbers.step
        if strip_annotated(self.parameter.kind) is int:
            step = None if self.numbers.log else int(step or 1)
            return trial.suggest_int(self.name, int(low), int(high), log=self.numbers.log, step=step or 1)
        return trial.suggest_float(self.name, low, high, log=self.numbers.log, step=step)


def list_spaces(pipeline: Pipeline, fixed: Mapping[str, Any]) -> list[Space]:
    """The search spaces of the user's stages, except for parameters with a fixed value.

    Raises:
        UsageError: there is nothing to search. DeclarationError: a Search on a parameter that is not a number.
    """
    spaces = list_searchable_spaces(pipeline, fixed)
    if not spaces:
        raise UsageError(
            f"App '{pipeline.name}' declares no parameter to search.",
            "Annotate one: C: Annotated[float, Search(1e-3, 10, log=True)] = 1.0, with `from mlapp import Search`.",
        )
    return spaces


def list_searchable_spaces(pipeline: Pipeline, fixed: Mapping[str, Any]) -> list[Space]:
    """Like `list_spaces`, but empty if there is nothing to search.

    Raises:
        DeclarationError: a Search on a parameter that is not a number.
    """
    spaces = []
    for parameter in list_parameters(pipeline.stages.values()):
        # Some `bool` and `Literal` parameters of a library's class exclude each other, so they are not searched.
        is_user_defined = not isinstance(pipeline.stages[parameter.stage].function, type)
        if parameter.name in fixed or parameter.full_name in fixed:
            continue
        space = _make_space(parameter, is_user_defined)
        if space is not None:
            spaces.append(space)
    return spaces


def _make_space(parameter: Parameter, is_user_defined: bool) -> Space | None:
    kind = parameter.kind
    if typing.get_origin(kind) is typing.Annotated:
        for annotation in typing.get_args(kind)[1:]:
            if isinstance(annotation, Search):
                if strip_annotated(kind) not in (int, float):
                    raise DeclarationError(
                        f"Parameter '{parameter.name}' of {parameter.stage} has a Search, but is not a number.",
                        "Annotate it as Annotated[float, Search(…)] or Annotated[int, Search(…)].",
                    )
                return Space(parameter, numbers=annotation)
    if parameter.stage not in IMPLICIT_STAGES or not is_user_defined:
        return None
    kind = strip_annotated(kind)
    if typing.get_origin(kind) is typing.Literal:
        return Space(parameter, choices=typing.get_args(kind))
    return Space(parameter, choices=(False, True)) if kind is bool else None
