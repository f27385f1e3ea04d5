from pathlib import Path
from typing import Annotated

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import {{ "RandomForestClassifier" if cookiecutter.task == "classification" else "RandomForestRegressor" }}
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlapp import App, Search

DATES = [{{ cookiecutter.dates }}]

{% if cookiecutter.left_out -%}
# Not used as features: {{ cookiecutter.left_out }}.
{% endif -%}
app = App("{{ cookiecutter.name }}", target={{ cookiecutter.target.__repr__() }}{{ cookiecutter.features }})


@app.data_reader
def read(path: Path = Path({{ cookiecutter.data.__repr__() }}), limit: int | None = None) -> pd.DataFrame:
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, parse_dates=DATES{{ cookiecutter.csv }})
    return table.dropna(subset=[{{ cookiecutter.target.__repr__() }}]).head(limit)


@app.feature_transformer
def dates_as_numbers(features: pd.DataFrame) -> pd.DataFrame:
    """Replace each date with its days since 1970, month and weekday, because models do not accept dates."""
    parts = {}
    for name in features.select_dtypes(["datetime", "datetimetz"]):
        date = pd.to_datetime(features[name], utc=True)
        parts[f"{name} day"] = (date - pd.Timestamp(0, tz="UTC")).dt.days
        parts[f"{name} month"] = date.dt.month
        parts[f"{name} weekday"] = date.dt.day_of_week
    return features.drop(columns=features.select_dtypes(["datetime", "datetimetz"])).assign(**parts)


@app.model
def build(
    n_estimators: int = 200,
    max_depth: Annotated[int, Search(2, 32, log=True)] = 32,  # `mlapp tune` searches these two
    min_samples_leaf: Annotated[int, Search(1, 20, log=True)] = 1,
    random_state: int = 0,
) -> Pipeline:
    columns = make_column_transformer(
        (SimpleImputer(add_indicator=True), make_column_selector(dtype_include="number")),
        (
            OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=30),
            make_column_selector(dtype_exclude="number"),
        ),
    )
    model = {{ "RandomForestClassifier" if cookiecutter.task == "classification" else "RandomForestRegressor" }}(
        n_estimators=n_estimators,
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        random_state=random_state,
    )
    return make_pipeline(columns, model)
