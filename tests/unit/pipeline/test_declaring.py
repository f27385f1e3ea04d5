"""Declaring an app: decorators return functions unchanged, and check their signatures at declaration."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlapp import App
from mlapp.errors import DeclarationError

if TYPE_CHECKING:
    from a_package_that_is_not_there import Table  # type: ignore[import-not-found]


def test_a_decorated_function_stays_an_ordinary_function() -> None:
    app = App("flowers")

    def read(rows: int = 3) -> list[int]:
        return list(range(rows))

    assert app.data_reader(read) is read
    assert read(2) == [0, 1]


def test_a_decorator_takes_options_too() -> None:
    app = App("flowers")

    @app.trainer(cache=True, retries=2)
    def fit(model: object, features: object) -> object:
        return model

    task = app.stages["trainer"].options.task
    assert (task.cache, task.retries) == (True, 2)


def test_annotations_that_only_a_type_checker_can_resolve_count_as_missing() -> None:
    app = App("flowers", target="y")

    @app.trainer
    def fit(model: Table, features: Table, target: Table, epochs: int = 3) -> Table:
        return model

    (epochs,) = app.stages["trainer"].own_parameters
    assert (epochs.name, epochs.annotation) == ("epochs", int)


@pytest.mark.parametrize(
    ("role", "function", "has", "should"),
    [
        ("trainer", lambda model: model, "(model)", "(model, features, target, …its parameters)"),
        ("predictor", lambda model: model, "(model)", "(model, features)"),
        ("predictor", lambda model, features, threshold=0.5: 1, "(model, features, threshold)", "(model, features)"),
        ("feature_transformer", lambda: 1, "()", "(features)"),
        ("on_predict", lambda model, features: None, "(model, features)", "(model, features, predictions)"),
        ("evaluator", lambda model, /: 1, "(model)", "(model, features, target, …its parameters)"),
    ],
)
def test_a_signature_that_does_not_fit_names_what_it_has_and_should_have(role, function, has, should) -> None:
    with pytest.raises(DeclarationError) as error:
        getattr(App("flowers", target="y"), role)(function)
    assert f"{role} '<lambda>' in test_declaring.py:" in error.value.what
    assert f"takes {has}" in error.value.what
    assert should in error.value.todo


async def fit_later(model, features, target):
    return model


def yield_model(model, features, target):
    yield model


def fit_wrongly(model, features, target, C: float = "a"):
    return model


def fit_layers(model, features, target, *, layers: list[int] = ["a"]):
    return model


def fit_solver(model, features, target, solver: Literal["l1", "l2"] = "l3"):
    return model


class Fitter:
    def fit(self, model, features, target):
        return model


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (fit_later, "is async, but only a predictor can be."),
        (yield_model, "yields its result."),
        (Fitter.fit, "is a method, and has no object."),
        (fit_wrongly, ": the default of C is 'a', but its annotation is float."),
        (fit_layers, ": the default of layers is ['a'], but its annotation is a list of int."),
        (fit_solver, ": the default of solver is 'l3', but its annotation is one of l1, l2."),
    ],
)
def test_a_function_that_cannot_be_called_so_is_named_with_its_line(function, says) -> None:
    with pytest.raises(DeclarationError) as error:
        App("flowers", target="y").trainer(function)
    line = function.__code__.co_firstlineno
    assert f"trainer '{function.__name__}' in test_declaring.py:{line}" in error.value.what
    assert says in error.value.what


def fit_unset(model, features, target, C: float = None, n: int | None = None, rows: float = 1, flag: bool = 0):  # noqa: RUF013
    return model


def fit_any(model, features, target, table: pd.DataFrame = 1, method: Callable = "x", depth: int | str = "auto"):
    return model


@pytest.mark.parametrize(
    "function",
    [fit_unset, fit_any, Fitter().fit, functools.partial(fit_unset, rows=2), lambda model, features, target: model],
)
def test_a_default_that_may_be_meant_is_not_refused(function) -> None:
    app = App("flowers", target="y")
    app.trainer(function)
    assert app.stages["trainer"].function is function


def test_a_predictor_may_be_async_and_a_reader_may_yield() -> None:
    app = App("flowers", target="y")

    @app.data_reader
    def read():
        yield 1

    @app.predictor
    async def predict(model, features):
        return [1]

    assert set(app.stages) == {"data_reader", "predictor"}


def test_an_app_without_a_target_has_stages_without_one() -> None:
    app = App("clusters")

    @app.trainer
    def fit(model: object, features: object, rounds: int = 2) -> object:
        return model

    assert [argument.name for argument in app.stages["trainer"].own_parameters] == ["rounds"]


def test_two_functions_for_one_stage_are_an_error_that_names_both() -> None:
    app = App("flowers")

    @app.data_reader
    def first() -> None: ...

    with pytest.raises(DeclarationError, match=r"two functions for data_reader: .*'first'.* and .*'second'"):

        @app.data_reader
        def second() -> None: ...


def test_a_function_that_is_defined_again_replaces_the_old_one() -> None:
    app = App("flowers")
    for value in (1, 2):

        @app.data_reader
        def read(value: int = value) -> int:
            return value

    assert app.stages["data_reader"].function() == 2


@pytest.mark.parametrize("name", ["", "a b", "../up", "-dash", "x" * 101, "naïve"])
def test_a_name_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="cannot be used in folder names"):
        App(name)


def test_columns_are_named_by_strings() -> None:
    with pytest.raises(DeclarationError, match="neither a column's name nor a list of names"):
        App("flowers", features=["x", 5])


def test_a_target_that_is_also_a_feature_is_refused() -> None:
    with pytest.raises(DeclarationError, match="'y' is both"):
        App("flowers", target="y", features=["x", "y"])


@pytest.mark.parametrize(
    ("declare", "option"),
    [
        (lambda app: app.predictor(batch="no"), "@app.predictor(batch=…) is 'no'"),
        (lambda app: app.predictor(max_batch=0), "@app.predictor(max_batch=…) is 0"),
        (lambda app: app.predictor(wait=math.nan), "@app.predictor(wait=…) is nan"),
        (lambda app: app.trainer(retries="3"), "@app.trainer: retries=… is '3'"),
        (lambda app: app.trainer(cache="yes"), "@app.trainer: cache=… is 'yes'"),
        (lambda app: app.trainer(timeout="1h"), "@app.trainer: timeout=… is '1h'"),
        (lambda app: app.trainer(secrets="KEY"), "@app.trainer: secrets=… is 'KEY'"),
        (lambda app: app.trainer(resources={"cpu": 4}), "@app.trainer: resources=… is {'cpu': 4}"),
        (lambda app: app.model(format=5), "@app.model(format=…) is 5"),
        (lambda app: app.model(trained="yes"), "@app.model(trained=…) is 'yes'"),
        (lambda app: app.model(trusted="package.Class"), "@app.model(trusted=…) is 'package.Class'"),
        (lambda app: app.feature_loader(schema=["x"]), "@app.feature_loader(schema=…) is ['x']"),
        (lambda app: app.schedule(cron="0 3 * * *", parameters=["x"]), "Schedule 'train': parameters=… is ['x']"),
        (lambda app: app.schedule(cron="0 3 * * *", model=0, predict=True), "Schedule 'predict': model=… is 0"),
    ],
)
def test_an_option_with_a_wrong_value_is_named_where_it_is_written(declare, option) -> None:
    with pytest.raises(DeclarationError) as error:
        declare(App("flowers", target="y"))
    assert error.value.what == f"{option}, which is not valid."
    assert error.value.todo.startswith("Give ")


def test_an_unknown_option_lists_the_options_of_its_decorator() -> None:
    with pytest.raises(DeclarationError) as error:
        App("flowers").predictor(max_bach=5)
    assert "Did you mean 'max_batch'?" in error.value.what
    assert error.value.todo == "Known: batch, cache, max_batch, resources, retries, secrets, timeout, wait."


def test_two_functions_of_one_name_in_a_file_are_two() -> None:
    app = App("flowers")

    @app.data_reader
    def read() -> int:
        return 1

    with pytest.raises(DeclarationError, match="two functions for data_reader"):

        @app.data_reader
        def read() -> int:
            return 2


def test_a_script_is_held_to_it_too(tmp_path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "from mlapp import App\napp = App('a')\n@app.data_reader\ndef one(): ...\n@app.data_reader\ndef two(): ...\n"
    )
    process = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (
        "two functions for data_reader: data_reader 'one' in app.py:3 and data_reader 'two' in app.py:5"
        in process.stderr
    )


def test_a_cell_of_a_notebook_may_be_run_again_and_changed() -> None:
    app = App("flowers")
    cell = "@app.data_reader\ndef {name}(): return {value}"
    for name, value in (("read", 1), ("read", 2), ("load", 3)):
        exec(compile(cell.format(name=name, value=value), "<ipython-input-1>", "exec"), {"app": app})
    assert app.stages["data_reader"].function() == 3


def test_every_on_predict_is_called_and_one_that_fails_stops_no_other(caplog) -> None:
    app = App("flowers", target="y")
    calls = []

    @app.on_predict
    def first(model, features, predictions):
        raise ValueError("no connection")

    @app.on_predict
    def second(model, features, predictions):
        calls.append(predictions)

    app.data_reader(lambda: {"x": [1.0, 2.0] * 10, "y": [0, 1] * 10})
    app.model(LogisticRegression)
    app.train()
    app.predict([{"x": 1.0}])
    assert len(calls) == 1
    assert "on_predict 'first'" in caplog.text


@pytest.mark.parametrize(
    ("option", "says", "todo"),
    [
        ({"cpu": 4}, "@app.trainer has no option 'cpu'", "resources=Resources(cpu=4)"),
        ({"retry": 4}, r"no option 'retry'. Did you mean 'retries'\?", "Known: cache"),
    ],
)
def test_an_unknown_option_is_reported(option, says, todo) -> None:
    with pytest.raises(DeclarationError, match=says) as error:
        App("flowers").trainer(**option)
    assert todo in error.value.todo
