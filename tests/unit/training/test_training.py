"""Training: every stage of an app, its default, and what a stage may not return."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from mlapp import App
from mlapp.errors import DataError, DeclarationError, MlappError, ModelError, UsageError, UserCodeError

ROWS = 60


def table(rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    return pd.DataFrame({"x": x, "noise": random.normal(size=rows), "y": np.where(x > 0, "high", "low")})


def an_app(**options: Any) -> App:
    app = App("numbers", **{"target": "y", **options})
    app.data_reader(table)
    app.model(LogisticRegression)
    return app


def test_a_reader_and_a_model_are_enough() -> None:
    trained = an_app().train(C=10.0)
    assert trained.estimator.C == 10.0
    assert trained.metrics["test"]["accuracy"] > 0.8
    assert set(trained.metrics) == {"train", "test"}
    assert trained.parameters["C"] == 10.0
    assert (trained.parameters["rows"], trained.parameters["test_size"]) == (60, 0.2)
    assert trained.schema.features.names == ["x", "noise"]
    assert (trained.rows, trained.columns) == (60, 3)


@pytest.mark.parametrize("bad", [None, np.inf])
def test_values_that_are_missing_or_infinite_are_reported_with_their_column(bad: float | None) -> None:
    app = App("gaps", target="y")
    app.data_reader(lambda: table().assign(age=[bad, *range(ROWS - 1)]))
    app.model(LogisticRegression)
    with pytest.raises(DataError, match="Column 'age' of the features has 1 missing or infinite values") as raised:
        app.train(test_size=0)
    assert "SimpleImputer" in raised.value.todo


def test_a_model_fitted_on_fewer_columns_than_it_gets_names_the_function_that_fitted_it() -> None:
    app = an_app()

    @app.trainer
    def fit(model: LogisticRegression, features: pd.DataFrame, target: pd.Series) -> LogisticRegression:
        return model.fit(features[["x"]], target)

    with pytest.raises(ModelError, match=r"trainer 'fit' .* on 1 column \(x\), but it gets 2 \(x, noise\)") as raised:
        app.train()
    assert "@app.feature_transformer" in raised.value.todo


def test_a_trainer_makes_the_model_of_the_parameters_that_the_model_function_returns() -> None:
    app = App("parameters", target="y")
    app.data_reader(table)

    @app.model
    def list_parameters(C: float = 1.0) -> dict[str, float]:
        return {"C": C}

    with pytest.raises(DeclarationError, match=r"model 'list_parameters' in .* returned a dict, not a model") as raised:
        app.train()
    assert "@app.trainer" in raised.value.todo

    @app.trainer
    def fit(parameters: dict[str, float], features: pd.DataFrame, target: pd.Series) -> LogisticRegression:
        return LogisticRegression(**parameters).fit(features, target)

    trained = app.train(C=10.0)
    assert trained.estimator.C == 10.0
    assert trained.metrics["test"]["accuracy"] > 0.8


def test_a_model_function_that_returns_a_class_is_reported() -> None:
    app = App("class", target="y")
    app.data_reader(table)
    app.model(lambda: LogisticRegression)
    with pytest.raises(DeclarationError, match="returned the class LogisticRegression, not a model"):
        app.train()


def test_a_splitter_gets_the_usual_values_of_parameters_without_a_default() -> None:
    app, received = an_app(), []

    @app.data_splitter
    def split(data: pd.DataFrame, test_size: float, shuffle: bool, random_state: int) -> Any:
        received.append((test_size, shuffle, random_state))
        return data[:40], data[40:]

    app.train()
    app.train(test_size=0.5)
    assert received == [(0.2, True, 0), (0.5, True, 0)]


def test_targets_of_numbers_and_texts_are_reported_by_name() -> None:
    app = App("targets", target=["noise", "y"])
    app.data_reader(table)
    app.model(lambda: DecisionTreeClassifier())
    with pytest.raises(DataError, match="The targets have different types, .*: y is not numeric, noise is") as raised:
        app.train()
    assert "table['y'].astype('category').cat.codes" in raised.value.todo


def test_texts_that_a_model_does_not_take_are_reported_with_their_column() -> None:
    app = App("towns", target="y")
    app.data_reader(lambda: table().assign(town="Bern"))
    app.model(LogisticRegression)
    with pytest.raises(DataError, match="Column 'town' of the features contains strings such as 'Bern', which a Log"):
        app.train()


@pytest.mark.parametrize(("odd", "option"), [("n.a.", "na_values=['n.a.']"), ("1,200", "thousands=','")])
def test_numbers_that_were_read_as_texts_are_reported_with_how_to_read_them(odd: str, option: str) -> None:
    app = App("prices", target="y")
    app.data_reader(lambda: table().assign(price=["10.5"] * (ROWS - 1) + [odd]))
    app.model(LogisticRegression)
    with pytest.raises(DataError, match=f"Column 'price' of the features contains strings such as '{odd}'") as raised:
        app.train()
    assert f"pd.read_csv(…, dtype={{'price': 'float64'}}, {option})" in raised.value.todo


@pytest.mark.parametrize("target", ["y", "price"])
def test_exact_decimals_are_floats_for_the_model(target: str) -> None:
    def priced() -> pd.DataFrame:
        prices = [Decimal(number) / 4 for number in range(ROWS)]
        return table().assign(price=prices, cost=pd.array(prices, dtype=pd.ArrowDtype(pyarrow.decimal128(9, 2))))

    app = App("prices", target=target, features=["x", "cost"])
    app.data_reader(priced)
    app.model(LogisticRegression if target == "y" else LinearRegression)
    trained = app.train()
    assert {field.dtype for field in trained.schema.features.fields} == {"float64"}
    assert trained.metrics["test"]["accuracy" if target == "y" else "r2"] > 0.8


def test_every_stage_is_called_with_what_the_one_before_it_gave() -> None:
    calls: list[str] = []
    app = App("stages", target="y")

    @app.data_reader
    def read(rows: int = 10) -> str:
        calls.append(f"read {rows}")
        return "raw"

    @app.data_loader
    def load(data: str) -> pd.DataFrame:
        calls.append(f"load {data}")
        return table(40)

    @app.data_splitter
    def split(data: pd.DataFrame, share: float = 0.5) -> dict[str, pd.DataFrame]:
        calls.append(f"split {share}")
        at = int(len(data) * share)
        return {"train": data[:at], "holdout": data[at:]}

    @app.data_parser
    def parse(data: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
        calls.append(f"parse {len(data)}")
        return data[["x"]], data["y"]

    @app.feature_transformer
    def transform(features: pd.DataFrame) -> pd.DataFrame:
        calls.append(f"transform {len(features)}")
        return features * 2

    @app.model
    def build(C: float = 1.0) -> LogisticRegression:
        calls.append(f"build {C}")
        return LogisticRegression(C=C)

    @app.trainer
    def fit(model: Any, features: Any, target: Any, *, rounds: int = 1) -> Any:
        calls.append(f"fit {rounds} {features.shape}")
        return model.fit(features, target)

    @app.evaluator
    def evaluate(model: Any, features: Any, target: Any, digits: int = 2) -> float:
        calls.append(f"evaluate {len(features)}")
        return round(model.score(features, target), digits)

    trained = app.train(rows=3, share=0.25, C=2.0, rounds=7, digits=1)

    in_training = calls[: calls.index("evaluate 30") + 1]
    assert in_training == [
        "build 2.0",
        "read 3",
        "load raw",
        "split 0.25",
        "parse 10",
        "transform 10",
        "fit 7 (10, 1)",
        "evaluate 10",
        "parse 30",
        "transform 30",
        "evaluate 30",
    ]
    assert set(trained.metrics) == {"train", "holdout"}
    assert set(trained.metrics["holdout"]) == {"score"}


def test_the_transformer_runs_once_in_prediction_too() -> None:
    app, calls = an_app(), []

    @app.feature_transformer
    def double(features: pd.DataFrame) -> pd.DataFrame:
        calls.append(len(features))
        return features * 2

    app.train()
    calls.clear()
    app.predict([{"x": 1.0, "noise": 0.0}])
    assert calls == [1]


def test_training_twice_in_one_process_gives_two_models() -> None:
    app = an_app()
    first, second = app.train(C=0.01), app.train(C=100.0)
    assert (first.estimator.C, second.estimator.C) == (0.01, 100.0)
    assert first.estimator is not second.estimator


@pytest.mark.parametrize(
    "split",
    [
        lambda table: train_test_split(table, test_size=0.3),
        lambda table: (table.sample(frac=0.7), table),
        lambda table: (table.iloc[random.sample(range(len(table)), 40)], table),
    ],
    ids=["scikit-learn", "pandas", "python"],
)
def test_a_splitter_and_an_evaluator_without_a_seed_give_the_same_numbers_again(split: Any) -> None:
    app = an_app()
    app.data_splitter(lambda data: split(data))

    @app.evaluator
    def evaluate(model: Any, features: pd.DataFrame, target: Any) -> dict[str, float]:
        return {"mean": features["x"].mean(), "bootstrap": features["x"].sample(frac=1, replace=True).mean()}

    state = random.getstate()
    assert app.train().metrics == app.train().metrics
    assert random.getstate() == state


def test_the_same_seed_gives_the_same_splits() -> None:
    from mlapp.training.defaults import split_default_table

    first, same, other = (
        list(split_default_table(table(), ("y",), random_state=seed)["test"].index) for seed in (1, 1, 2)
    )
    assert first == same != other


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_few_rows_leave_one_to_train_on(shuffle: bool) -> None:
    from mlapp.training.defaults import split_default_table

    splits = split_default_table(table().head(3), ("y",), test_size=0.9, shuffle=shuffle)
    assert {name: len(part) for name, part in splits.items()} == {"train": 1, "test": 2}


def test_a_class_keeps_its_share_in_both_splits() -> None:
    from mlapp.training.defaults import split_default_table

    data = pd.DataFrame({"y": ["rare"] * 10 + ["common"] * 90})
    splits = split_default_table(data, ("y",))
    assert [(part["y"] == "rare").sum() for part in splits.values()] == [8, 2]


@pytest.mark.parametrize(
    ("target", "warning"),
    [
        (["a"] * 10 + ["b"] * 10 + ["rare"], "The class 'rare' of the target 'y' has one row"),
        ([0] * 10 + [1] * 10 + [2], "The class '2' of the target 'y' has one row"),
        (["a"] * 19 + ["b", "c"], "The classes 'b', 'c' of the target 'y' have one row"),
        (["a"] * 10 + ["b"] * 11, None),
        ([float(at) for at in range(21)], None),
        (list(range(21)), None),
    ],
)
def test_a_class_with_one_row_is_named(
    target: list[object], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    from mlapp.training.defaults import split_default_table

    split_default_table(pd.DataFrame({"x": range(21), "y": target}), ("y",))
    messages = [record.getMessage() for record in caplog.records]
    assert [text.startswith(warning or "none") for text in messages] == [True] * (warning is not None)


def test_named_features_are_the_only_ones_used() -> None:
    app = an_app(features=["x"])
    trained = app.train()
    assert trained.estimator.n_features_in_ == 1
    assert len(app.predict([{"x": 1.0}])) == 1
    assert len(app.predict([{"x": 1.0, "noise": 2.0}])) == 1  # the training table had it
    with pytest.raises(MlappError, match="unknown column 'noises'"):
        app.predict([{"x": 1.0, "noises": 2.0}])


def test_an_app_without_a_target_clusters() -> None:
    app = App("clusters")
    app.data_reader(lambda: table()[["x", "noise"]])
    app.model(KMeans)
    trained = app.train(n_clusters=3, n_init=2)
    assert trained.metrics["test"]["clusters"] <= 3
    assert len(app.predict([[0.0, 0.0], [1.0, 1.0]])) == 2


def test_an_app_with_several_targets() -> None:
    app = App("pair", target=["a", "b"])
    app.data_reader(lambda: table().assign(a=lambda t: t.x * 2, b=lambda t: t.x + 1).drop(columns="y"))
    app.model(LinearRegression)
    trained = app.train()
    assert trained.metrics["test"]["r2"] > 0.99
    assert np.shape(app.predict([[1.0, 0.0]])) == (1, 2)


def test_a_ready_model_comes_from_its_file_and_is_not_trained(tmp_path: Path) -> None:
    from skops import io

    io.dump(LogisticRegression(C=7.0).fit(table()[["x", "noise"]], table()["y"]), tmp_path / "ready.skops")
    app = App("ready", target="y")
    app.data_reader(table)
    app.model(tmp_path / "ready.skops")
    trained = app.train()
    assert trained.estimator.C == 7.0
    assert trained.metrics["test"]["accuracy"] > 0.8


def test_a_ready_model_may_come_from_a_function() -> None:
    app = App("ready", target="y")
    app.data_reader(table)

    @app.model(trained=True)
    def fetch() -> LogisticRegression:
        return LogisticRegression().fit(table()[["x", "noise"]], table()["y"])

    assert app.train().metrics["test"]["accuracy"] > 0.8


def test_a_predictor_that_wants_an_array_is_trained_on_arrays_too(recwarn: pytest.WarningsRecorder) -> None:
    app = an_app()

    @app.predictor
    def predict(model: LogisticRegression, features: np.ndarray) -> list[str]:
        assert isinstance(features, np.ndarray)
        return model.predict(features).tolist()

    app.train()
    assert app.predict([{"x": 3.0, "noise": 0.0}]) == ["high"]
    assert not [warning for warning in recwarn if "feature names" in str(warning.message)]


@pytest.mark.parametrize(
    "give",
    [
        lambda data: data,
        lambda data: data.to_dict("records"),
        lambda data: data.to_dict("list"),
        lambda data: data.to_json(orient="records"),
        lambda data: __import__("pyarrow").Table.from_pandas(data),
    ],
    ids=["pandas", "records", "columns", "json", "arrow"],
)
def test_the_reader_may_return_any_kind_of_table(give: Any) -> None:
    app = App("numbers", target="y")
    app.data_reader(lambda: give(table()))
    app.model(LogisticRegression)
    assert app.train().schema.features.names == ["x", "noise"]


@pytest.mark.parametrize(
    ("reader", "error", "says"),
    [
        (lambda: None, DataError, "data_reader '<lambda>' in test_training.py"),
        (lambda: table()[:0], DataError, "returned no rows"),
        (lambda: table().drop(columns="y").assign(Y=1), DataError, "no target column 'y'. Did you mean 'Y'?"),
        (lambda: table().assign(y="one"), DataError, "Target 'y' has the same value"),
        (lambda: table().assign(y=lambda t: t.y.where(t.index > 3)), DataError, "missing in 4 of 60 rows"),
        (lambda: 42, DataError, "The data is not a table: int"),
        (lambda: "nonsense", DataError, "string that is not JSON"),
        (lambda: 1 / 0, UserCodeError, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_reader_that_gives_nothing_of_use_is_named(reader: Any, error: type[Exception], says: str) -> None:
    app = App("numbers", target="y")
    app.data_reader(reader)
    app.model(LogisticRegression)
    with pytest.raises(error) as raised:
        app.train()
    assert says in str(raised.value)


def test_an_error_of_the_users_own_points_at_its_line() -> None:
    app = App("numbers", target="y")

    def read() -> Any:
        return {}["nothing"]

    app.data_reader(read)
    app.model(LogisticRegression)
    with pytest.raises(UserCodeError) as raised:
        app.train()
    line = read.__code__.co_firstlineno + 1
    assert raised.value.todo == f"Fix it at {__file__}:{line}."


@pytest.mark.parametrize("returned", ["0.9", None, {"accuracy": "high"}, [0.9], True])
def test_an_evaluator_that_returns_no_number_is_named(returned: Any) -> None:
    app = an_app()

    @app.evaluator
    def evaluate(model: Any, features: Any, target: Any) -> Any:
        return returned

    with pytest.raises(DataError, match="evaluator 'evaluate' in test_training.py:.* returned"):
        app.train()


@pytest.mark.parametrize("role", ["model", "trainer"])
def test_a_function_that_forgets_to_return_the_model_is_named(role: str) -> None:
    app = App("numbers", target="y")
    app.data_reader(table)
    app.model((lambda: None) if role == "model" else LogisticRegression)
    if role == "trainer":
        app.trainer(lambda model, features, target: None)
    with pytest.raises(DeclarationError, match=f"{role} '<lambda>'.* returned None"):
        app.train()


def test_a_predictor_that_loses_rows_is_found_in_training() -> None:
    app = an_app()
    app.predictor(lambda model, features: [1])
    with pytest.raises(DataError, match="returned 1 predictions for 48 rows"):
        app.train()


def test_a_missing_stage_is_named() -> None:
    app = App("numbers")
    app.model(LogisticRegression)
    with pytest.raises(DeclarationError, match="has no data_reader"):
        app.train()


def test_a_wrong_hyperparameter_is_found_before_the_data_is_read() -> None:
    app = App("numbers", target="y")
    app.data_reader(lambda: pytest.fail("the data was read"))
    app.model(LogisticRegression)
    with pytest.raises(UsageError, match="'C' of model"):
        app.train({"C": "strong"})
    with pytest.raises(UsageError, match="No stage takes a parameter 'depth'"):
        app.train(depth=3)


def test_an_unknown_format_is_found_before_the_data_is_read() -> None:
    app = App("numbers", target="y")
    app.data_reader(lambda: pytest.fail("the data was read"))
    app.model(LogisticRegression, format="onyx")
    with pytest.raises(ModelError, match="cannot be saved as 'onyx'"):
        app.train()


def test_on_predict_is_called_and_its_error_reaches_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    app, calls = an_app(), []

    @app.on_predict
    def tell(model: Any, features: pd.DataFrame, predictions: Any) -> None:
        calls.append((len(features), list(predictions)))
        raise RuntimeError("the log is full")

    app.train()
    calls.clear()
    assert list(app.predict([{"x": 3.0, "noise": 0.0}])) == ["high"]
    assert calls == [(1, ["high"])]
    assert "the log is full" in caplog.text


def test_predicting_over_what_the_reader_reads() -> None:
    app = an_app()
    app.train()
    assert len(app.predict(rows=7)) == 7
    assert len(app.predict(table(5).drop(columns="y"))) == 5


def test_an_async_predictor_and_one_that_yields() -> None:
    for predictor in (_async_predict, _stream):
        app = an_app()
        app.predictor(predictor)
        app.train()
        assert app.predict([{"x": 3.0, "noise": 0.0}]) == ["high"]


async def _async_predict(model: Any, features: Any) -> list[str]:
    return model.predict(features).tolist()


def _stream(model: Any, features: Any) -> Any:
    yield from model.predict(features)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("epochs", 0, "epochs is 0; it must be 1 or more"),
        ("batch_size", -8, "batch_size is -8"),
        ("learning_rate", -0.1, "learning_rate is -0.1; it must be 0 or more"),
        ("validation", 1.0, "validation is 1; it must be a fraction"),
        ("device", "cuda:99", "The device 'cuda:99' cannot be used here"),
    ],
)
def test_what_a_training_loop_cannot_do_is_reported_before_the_data_is_read(name: str, value: Any, what: str) -> None:
    app = App("numbers", target="y")
    app.data_reader(lambda: pytest.fail("the data was read"))
    app.model(lambda: torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match=what):
        app.train(**{name: value})
