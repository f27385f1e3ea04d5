"""Parameters: from a text or a value to the stage that declares it."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.errors import UsageError
from mlapp.pipeline import Parameter, bind_pipeline_parameters
from mlapp.pipeline.parameters import flatten_parameters, list_parameters


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (int, "3", 3),
        (float, "1e-3", 0.001),
        (float, 1, 1.0),
        (bool, "true", True),
        (bool, "No", False),
        (str, "1.0", "1.0"),
        (str, "", ""),
        (int | None, "none", None),
        (Optional[int], "7", 7),  # noqa: UP045
        (Literal["l1", "l2"], "l2", "l2"),
        (Literal[1, 2], "2", 2),
        (Color, "blue", Color.BLUE),
        (Color, "RED", Color.RED),
        (list[int], "1,2,3", [1, 2, 3]),
        (list[str], '["a,b", "c"]', ["a,b", "c"]),
        (list[float], [1, 2.5], [1.0, 2.5]),
        (tuple[int, ...], "1,2", (1, 2)),
        (datetime.date, "2026-01-31", datetime.date(2026, 1, 31)),
        (datetime.datetime, "2026-01-31T10:00:00", datetime.datetime(2026, 1, 31, 10)),
        (Path, "data/x.csv", Path("data/x.csv")),
        (Annotated[float, "a note"], "2", 2.0),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int, np.int64(4), 4),
        (float | str, "auto", "auto"),
        (float | str, "0.5", 0.5),
        (Any, "0.5", 0.5),
        (Any, "lbfgs", "lbfgs"),
        (Any, "None", None),
    ],
)
def test_a_value_becomes_the_type_that_the_signature_declares(kind: Any, given: Any, value: Any) -> None:
    converted_value = Parameter("model", "p", kind).convert_value(given)
    assert converted_value == value
    assert type(converted_value) is type(value)


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        (int, "1.5", "int"),
        (int, "", "int"),
        (int, True, "int"),
        (float, "fast", "float"),
        (bool, "maybe", "bool"),
        (Literal["l1", "l2"], "l3", "one of l1, l2"),
        (Color, "green", "one of red, blue"),
        (list[int], "1,x", "a list of int"),
        (datetime.date, "yesterday", "date"),
        (int | None, "many", "int or none"),
        (str, 3, "str"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_parameter_and_the_type(kind: Any, given: Any, wanted: str) -> None:
    with pytest.raises(UsageError) as error:
        Parameter("model", "C", kind).convert_value(given)
    assert error.value.what == f"Parameter 'C' of model takes {wanted}, not {given!r}."
    assert error.value.exit_code == 2


def app_with_a_shared_name() -> App:
    app = App("flowers", target="y")
    app.data_reader(lambda seed=0, limit=None: None)
    app.model(lambda C=1.0, seed=1: None)
    return app


def test_each_parameter_reaches_the_stage_that_declares_it_and_the_rest_keep_their_defaults() -> None:
    parameters = list_parameters(app_with_a_shared_name().stages.values())
    bound = bind_pipeline_parameters(parameters, {"C": "0.1", "data_reader.seed": "5", "limit": 10})
    assert bound == {"data_reader": {"seed": 5, "limit": 10}, "model": {"C": 0.1, "seed": 1}}
    assert flatten_parameters(bound) == {"data_reader.seed": 5, "limit": 10, "C": 0.1, "model.seed": 1}


def test_a_name_that_two_stages_share_must_say_which() -> None:
    parameters = list_parameters(app_with_a_shared_name().stages.values())
    with pytest.raises(UsageError, match="declared by 2 stages") as error:
        bind_pipeline_parameters(parameters, {"seed": 1})
    assert "data_reader.seed or model.seed" in error.value.todo


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"No stage takes a parameter 'limt'. Did you mean 'limit'\?"):
        bind_pipeline_parameters(list_parameters(app_with_a_shared_name().stages.values()), {"limt": 1})


def test_a_required_parameter_that_is_not_given_is_named() -> None:
    app = App("flowers")

    @app.data_reader
    def read(since: datetime.date) -> None: ...

    with pytest.raises(UsageError, match="'since' of data_reader has no default") as error:
        bind_pipeline_parameters(list_parameters(app.stages.values()), {})
    assert "-p since=2026-01-31" in error.value.todo


def test_a_class_declares_the_parameters_of_its_constructor() -> None:
    from sklearn.linear_model import LogisticRegression

    app = App("flowers", target="y")
    app.model(LogisticRegression)
    bound = bind_pipeline_parameters(list_parameters(app.stages.values()), {"C": "0.5", "solver": "saga"})
    assert (bound["model"]["C"], bound["model"]["solver"]) == (0.5, "saga")


def test_a_class_that_passes_keywords_on_declares_those_of_its_bases() -> None:
    class Base:
        def __init__(self, depth: int = 3) -> None: ...

    class Model(Base):
        def __init__(self, rate: float = 0.1, **others: Any) -> None: ...

    app = App("flowers")
    app.model(Model)
    assert {parameter.name for parameter in list_parameters(app.stages.values())} == {"rate", "depth"}


def test_a_default_may_be_a_table_or_an_array() -> None:
    app = App("defaults")

    @app.data_reader
    def read(weights=np.ones(2), table=pd.DataFrame({"a": [1]})) -> None: ...

    assert {parameter.name for parameter in list_parameters([app.stages["data_reader"]])} == {"weights", "table"}
