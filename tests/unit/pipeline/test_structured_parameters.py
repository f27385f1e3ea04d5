"""Parameters with fields (dataclasses, TypedDict, pydantic and the like): from options, a file and a version."""

from __future__ import annotations

import datetime
import enum
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from mlapp import App
from mlapp.errors import UsageError
from mlapp.pipeline import Parameter, bind_pipeline_parameters
from mlapp.pipeline.parameter_values import to_plain_parameter_value
from mlapp.pipeline.parameters import RecordedValue, flatten_parameters, list_open_parameter_stages, list_parameters


class Solver(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclass(frozen=True)
class Tree:
    depth: int = 3
    solver: Solver = Solver.FAST


@dataclass(frozen=True)
class Data:
    C: float
    days: list[datetime.date] = field(default_factory=list)
    tree: Tree = Tree()


class Typed(TypedDict, total=False):
    C: float
    depth: int


class Named(NamedTuple):
    C: float
    depth: int = 3


class Model(pydantic.BaseModel):
    C: float = pydantic.Field(1.0, gt=0)
    tree: Tree = Tree()


class Struct(msgspec.Struct):
    C: float = 1.0
    depth: int = 3


@attrs.frozen
class Attrs:
    C: float = 1.0
    depth: int = 3


def read_given(kind: Any, default: Any = ..., **values: Any) -> Any:
    """The value that a model function gets in its argument `hp`."""
    parameter = Parameter("model", "hp", kind) if default is ... else Parameter("model", "hp", kind, default)
    return bind_pipeline_parameters([parameter], {name.replace("__", "."): value for name, value in values.items()})[
        "model"
    ]["hp"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Typed, {"C": 0.1, "depth": 5}),
        (Named, Named(0.1, 5)),
        (Struct, Struct(0.1, 5)),
        (Attrs, Attrs(0.1, 5)),
        (dict[str, float], {"C": 0.1, "depth": 5.0}),
        (Named | None, Named(0.1, 5)),
    ],
)
def test_the_whole_as_json_or_field_by_field(kind: Any, expected: Any) -> None:
    assert read_given(kind, hp='{"C": 0.1, "depth": 5}') == expected
    assert read_given(kind, hp={"C": 0.1, "depth": 5}) == expected
    assert read_given(kind, hp__C="0.1", hp__depth="5") == expected
    assert read_given(kind, hp=expected) == expected


@pytest.mark.parametrize(("kind", "default"), [(Data, Data(1.0)), (Model, Model())])
def test_a_field_that_is_given_replaces_that_of_the_default_at_any_depth(kind: Any, default: Any) -> None:
    values = read_given(kind, default, hp__tree__solver="EXACT", hp__C="2")
    assert values == kind(C=2.0, tree=Tree(3, Solver.EXACT))
    assert default == kind(C=1.0)
    values = read_given(kind, default, hp='{"C": 3, "tree": {"depth": 7}}', hp__tree__solver="exact")
    assert values == kind(C=3.0, tree=Tree(7, Solver.EXACT))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Data, {"hp": "0.1"}, r"'hp' of model takes Data \(an object with C, days, tree\), not '0.1'"),
        (Data, {"hp": '{"c": 1}'}, r"'hp' of model has no field 'c'. Did you mean 'C'\?"),
        (Data, {"hp": "{}"}, "'hp' of model lacks the field 'C'"),
        (Data, {"hp__C": "fast"}, "'hp.C' of model takes float, not 'fast'"),
        (Data, {"hp__C": 1, "hp__tree__depth": "deep"}, "'hp.tree.depth' of model takes int, not 'deep'"),
        (Model, {"hp__C": -1}, "'hp' of model is refused: C: Input should be greater than 0"),
    ],
)
def test_a_wrong_field_is_named(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_given(kind, **values)


@pytest.mark.parametrize(
    "value",
    [
        Data(0.1, [datetime.date(2026, 1, 31)], Tree(4, Solver.EXACT)),
        Model(C=0.5, tree=Tree(9)),
        Named(1.0),
        Solver.EXACT,
        datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc),
        datetime.timedelta(days=1, seconds=1),
        {"a", "b"},
        (1, 2.5),
        float("inf"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_manifest_holds_gives_the_same_value_again(value: Any) -> None:
    recorded = json.loads(json.dumps(to_plain_parameter_value(value)))
    kind = tuple[int, float] if isinstance(value, tuple) and not isinstance(value, Named) else type(value)
    assert bind_pipeline_parameters([Parameter("model", "p", kind)], {"p": RecordedValue(recorded)}) == {
        "model": {"p": value}
    }


def test_a_default_without_a_text_form_is_returned_unchanged() -> None:
    parameter = Parameter("model", "loss", Any, len)
    assert (
        bind_pipeline_parameters([parameter], {"loss": RecordedValue(to_plain_parameter_value(len))})["model"]["loss"]
        is len
    )


def app_with_keywords() -> App:
    app = App("flowers", target="y")
    app.data_reader(lambda limit=None: None)

    @app.model
    def build(C: float = 1.0, **others: Any) -> dict[str, Any]:
        return {"C": C, **others}

    return app


def test_keywords_of_a_model_take_what_no_stage_declares() -> None:
    stages = app_with_keywords().stages.values()
    bound = bind_pipeline_parameters(
        list_parameters(stages), {"max_iter": "7", "model.tol": 0.1, "limit": "3"}, list_open_parameter_stages(stages)
    )
    assert bound == {"data_reader": {"limit": 3}, "model": {"C": 1.0, "max_iter": 7, "tol": 0.1}}
    assert flatten_parameters(bound, list_parameters(stages)) == {
        "limit": 3,
        "C": 1.0,
        "model.max_iter": 7,
        "model.tol": 0.1,
    }


def test_a_slip_of_the_pen_is_no_keyword() -> None:
    stages = app_with_keywords().stages.values()
    with pytest.raises(UsageError, match=r"'limt'. Did you mean 'limit'\?") as error:
        bind_pipeline_parameters(list_parameters(stages), {"limt": 3}, list_open_parameter_stages(stages))
    assert "model.limt" in error.value.todo


APP = """
from dataclasses import dataclass
from datetime import date
from enum import Enum

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("flowers", target="target")


class Solver(Enum):
    A = "lbfgs"
    B = "newton-cg"


@dataclass
class Hp:
    C: float = 1.0
    solver: Solver = Solver.A


@app.data_reader
def read(since: date = date(2026, 1, 1), limit: int = 90) -> pd.DataFrame:
    assert isinstance(since, date)
    return load_iris(as_frame=True).frame.sample(frac=1, random_state=0).head(limit)


@app.model
def build(hp: Hp = Hp(), **others) -> LogisticRegression:
    return LogisticRegression(C=hp.C, solver=hp.solver.value, **others)
"""


def test_train_takes_them_from_options_a_file_and_another_version(project, mlapp) -> None:
    project(APP, run__yaml="limit: 60\nhp: {C: 0.3}\nmodel:\n  max_iter: 300\n")
    first = json.loads(
        mlapp("train", "--params", "run.yaml", "-p", "hp.solver=B", "-p", "since=2026-02-03", "--json").out
    )
    assert first["parameters"]["hp"] == {"C": 0.3, "solver": "newton-cg"}
    assert first["parameters"]["model.max_iter"] == 300
    assert first["parameters"]["since"] == "2026-02-03"
    second = mlapp("train", "--like", "1", "--json")
    assert second.code == 0, second.err
    assert json.loads(second.out)["parameters"] == first["parameters"]
    third = json.loads(mlapp("train", "--like", "latest", "-p", "hp.C=2", "--json").out)
    assert third["parameters"] == {**first["parameters"], "hp": {"C": 2.0, "solver": "newton-cg"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "contains a list"),
        ("a: [\n", "is not YAML"),
        ("a: 1\na: 2\n", "the key `a` twice"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_parameters_file_that_cannot_be_used_is_named(project, mlapp, text: str | None, message: str) -> None:
    project(APP, **({"run__yaml": text} if text else {}))
    result = mlapp("train", "--params", "run.yaml")
    assert result.code == 2
    assert "run.yaml" in result.err
    assert message in result.err
