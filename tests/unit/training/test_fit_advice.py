"""A training that fails says which function, which column and what to do: errors of beginners, with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import polars
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlapp import App
from mlapp.errors import DataError, MlappError, UserCodeError
from mlapp.training.fit_advice import advise_on_fit_error


def passengers() -> pd.DataFrame:
    rows = range(40)
    return pd.DataFrame(
        {
            "age": [20.0 + row for row in rows],
            "sex": ["male" if row % 3 else "female" for row in rows],
            "ticket": [f"A{row}" for row in rows],
            "alive": [row % 2 for row in rows],
        }
    )


def an_app(model: Any, target: str | None = "alive", read: Callable[[], Any] = passengers) -> App:
    app = App("titanic", target=target)
    app.data_reader(read)

    @app.model
    def build() -> Any:
        return model

    return app


def fail(app: App) -> MlappError:
    with pytest.raises(MlappError) as raised:
        app.train()
    return raised.value


def pick(*steps: Any, **options: Any) -> Any:
    return make_pipeline(make_column_transformer(*steps, **options), LogisticRegression())


def ages() -> pd.DataFrame:
    return passengers()[["age", "alive"]]


@pytest.mark.parametrize(
    "model", [LogisticRegression(), LinearRegression(), make_pipeline(StandardScaler(), LogisticRegression())]
)
def test_a_forgotten_target_is_named_with_the_columns_to_choose_from(model: Any) -> None:
    error = fail(an_app(model, target=None, read=ages))
    assert "for model 'build' in test_fit_advice.py:" in error.what
    assert "y" in error.what, "scikit-learn's own message stays"
    assert error.todo == (
        "The model learns a target, and the app has none. Name its column, App(…, target='COLUMN'), or return it from "
        "an @app.data_parser. The table has the columns: age, alive."
    )


def test_a_wrong_column_of_a_column_transformer_is_named_with_the_nearest_one() -> None:
    error = fail(an_app(pick((StandardScaler(), ["ages"]))))
    assert isinstance(error, UserCodeError)
    assert "for model 'build' in test_fit_advice.py:" in error.what
    assert error.todo == ("The table has no column 'ages'. Did you mean 'age'? Its columns are: age, sex, ticket.")


@pytest.mark.parametrize(
    "access",
    [
        lambda table: table["ages"],
        lambda table: table[["age", "ages"]],
        lambda table: table[["ages"]],
        lambda table: table.loc[:, "ages"],
        lambda table: table.drop(columns="ages"),
        lambda table: table.dropna(subset=["ages"]),
        lambda table: table.sort_values("ages"),
        lambda table: table.groupby("ages").mean(),
        lambda table: table.groupby("sex")["ages"],
        lambda table: table.groupby("sex").agg({"ages": "mean"}),
        lambda table: table.drop_duplicates(subset=["ages"]),
        lambda table: table.astype({"ages": int}),
    ],
)
def test_a_missing_column_in_a_function_is_named_with_the_line_and_the_columns(access: Callable[..., Any]) -> None:
    app = an_app(LogisticRegression())

    @app.feature_transformer
    def transform(features: Any) -> Any:
        return access(features)

    error = fail(app)
    assert error.what.startswith("feature_transformer 'transform' in test_fit_advice.py:")
    assert error.todo.startswith(f"Fix it at {__file__}:")
    assert error.todo.endswith("The table has no column 'ages'. Did you mean 'age'? Its columns are: age, sex, ticket.")


def test_an_error_without_the_name_of_the_column_lists_the_columns_only() -> None:
    app = an_app(LogisticRegression())
    app.feature_transformer(lambda features: features.sample(3, weights="ages"))
    todo = fail(app).todo
    assert todo.endswith("Its columns are: age, sex, ticket.")
    assert "no column" not in todo


@pytest.mark.parametrize("name", ["ages", "append"])
def test_an_attribute_can_be_a_column_or_a_method_that_pandas_has_removed(name: str) -> None:
    app = an_app(LogisticRegression())
    app.feature_transformer(lambda features: getattr(features, name))
    hint = " Did you mean 'age'?" if name == "ages" else ""
    assert fail(app).todo.endswith(
        f"The table has no column or method '{name}'.{hint} Its columns are: age, sex, ticket."
    )


@pytest.mark.parametrize(
    "access", [lambda table: {}["ages"], lambda table: table.loc[1000], lambda table: table.age.loc["ages"]]
)
def test_a_missing_key_or_row_is_no_missing_column(access: Callable[..., Any]) -> None:
    app = an_app(LogisticRegression())
    app.feature_transformer(lambda features: access(features))
    assert "column" not in fail(app).todo


def test_the_column_of_a_text_that_no_step_encodes_is_named_and_not_the_first_column_of_texts() -> None:
    error = fail(an_app(pick((OneHotEncoder(), ["sex"]), remainder="passthrough")))
    assert "Column 'ticket' of the features contains strings such as 'A" in error.what
    assert "OneHotEncoder" in error.todo


def test_a_text_that_two_columns_contain_is_attributed_to_both() -> None:
    error = fail(an_app(LogisticRegression(), read=lambda: passengers().assign(sex_again=lambda table: table.sex)))
    assert "could not convert string to float: '" in error.what
    assert error.todo.startswith("The text is in columns 'sex', 'sex_again'. Encode it with a OneHotEncoder")


def test_the_text_of_an_own_trainer_is_attributed_to_its_column() -> None:
    app = an_app(LogisticRegression())

    @app.trainer
    def fit(model: Any, features: Any, target: Any) -> Any:
        return model.fit(features[["age", "sex"]], target)

    error = fail(app)
    assert error.what.startswith("trainer 'fit' in test_fit_advice.py:")
    assert "The text is in column 'sex'." in error.todo


def test_all_columns_with_missing_values_are_named() -> None:
    read = lambda: ages().assign(age=lambda t: t.age.where(t.index > 2), fare=lambda t: t.age.where(t.index < 30))  # noqa: E731
    error = fail(an_app(LogisticRegression(), read=read))
    assert "Input X contains NaN" in error.what
    assert error.todo == (
        "Values are missing in columns 'age', 'fare'. Put a SimpleImputer before the model, or fill them in the "
        "data_reader."
    )


def test_different_numbers_of_rows_and_targets_are_named() -> None:
    app = an_app(LogisticRegression())

    @app.data_parser
    def parse(table: pd.DataFrame) -> Any:
        return table[["age"]], table["alive"][:-1]

    error = fail(app)
    assert "inconsistent numbers of samples" in error.what
    assert error.todo == "The features have 32 rows and the target has 31: return equal numbers of both."


def test_advice_does_not_replace_another_cause() -> None:
    error = fail(an_app(KMeans(1000), target=None, read=ages))
    assert "n_clusters" in error.what
    assert "target" not in error.todo


def test_a_column_that_the_model_does_not_accept_is_reported_with_the_model_function() -> None:
    error = fail(an_app(LogisticRegression(), read=lambda: passengers().drop(columns="ticket")))
    assert isinstance(error, DataError)
    assert error.what.startswith("the default trainer of sklearn for model 'build' in test_fit_advice.py:")


def test_a_text_in_a_table_of_polars_gives_no_advice() -> None:
    features, error = polars.from_pandas(passengers()), ValueError("could not convert string to float: 'male'")
    assert advise_on_fit_error(error, KMeans(), features, None) is None
