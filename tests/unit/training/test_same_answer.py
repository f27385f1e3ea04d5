"""The same row gets the same answer by every way in, or one refusal in training: for any dtype and framework.

MLAPP_SAME_ANSWER=500 tries as many tables as it says; the suite tries a few, the same each time.
"""

from __future__ import annotations

import asyncio
import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightgbm import LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBRegressor

from mlapp import App
from mlapp.config import Serve
from mlapp.errors import MlappError
from mlapp.schema.infer import to_json_value
from mlapp.serving import create_asgi

EXAMPLES = int(os.environ.get("MLAPP_SAME_ANSWER", "12"))
ROWS = 24
ARROW = pd.ArrowDtype
NUMBERS = ("int8", "uint16", "int64", "float32", "float64", "Int8", "Int64", "UInt32", "Float32", "Float64")
ARROWS = {f"arrow {kind}": ARROW(kind) for kind in (pa.int16(), pa.int64(), pa.float32(), pa.float64())}
TEXTS = ("str", "object", "string", "string[pyarrow]")
KINDS = (
    *NUMBERS,
    *ARROWS,
    "bool",
    "boolean",
    "bool[pyarrow]",
    *TEXTS,
    "category",
    "ordered",
    "interval",
)
MODELS: dict[str, Callable[[], Any]] = {
    "linear": LinearRegression,
    "boosting": lambda: HistGradientBoostingRegressor(
        max_iter=3, min_samples_leaf=2, categorical_features="from_dtype"
    ),
    "encoder": lambda: make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [0]), remainder="passthrough"
        ),
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2),
    ),
    "xgboost": lambda: XGBRegressor(n_estimators=3, max_depth=2, enable_categorical=True, n_jobs=1),
    "lightgbm": lambda: LGBMRegressor(n_estimators=3, min_child_samples=2, n_jobs=1, verbose=-1),
    "onnx": LinearRegression,
}


@st.composite
def columns(draw: st.DrawFn, kinds: tuple[str, ...]) -> pd.Series:
    """A column of one dtype, with or without missing values."""
    kind = draw(st.sampled_from(kinds))
    seeds = np.array(draw(st.lists(st.integers(0, 9), min_size=ROWS, max_size=ROWS)))
    seeds[:4] = [0, 1, 2, 9]
    lacks = draw(st.booleans())
    values: list[Any]
    if "bool" in kind:
        values = [bool(seed % 2) for seed in seeds]
    elif kind in TEXTS or kind in ("category", "ordered"):
        values = [["low", "NA", "01234", "a,b", 'q"', "ü", "None", "nan", "x", ""][seed] for seed in seeds]
    else:
        values = [float(seed) / 4 if "f" in kind.lower() or "double" in kind else int(seed) for seed in seeds]
    if lacks and kind not in ("bool", *(name for name in NUMBERS if name[0] in "iu")):
        values[5] = None
    if kind == "interval":
        return pd.cut(pd.Series([float(seed) for seed in seeds]), 3)
    if kind in ("category", "ordered"):
        return pd.Series(
            pd.Categorical(values, sorted({value for value in values if value is not None}), ordered=kind == "ordered")
        )
    if kind == "string[pyarrow]":
        return pd.Series(values, dtype=ARROW(pa.string()))
    return pd.Series(values, dtype=ARROWS.get(kind, kind))


def an_app(table: pd.DataFrame, model: str) -> App:
    app = App("same", target="y")
    target = np.arange(ROWS, dtype=float) % 7
    app.data_reader(lambda: table.assign(y=target))
    build = MODELS[model]

    @app.model(format="onnx" if model == "onnx" else None)
    def make() -> Any:
        return build()

    return app


async def answers(app: App, trained: Any, table: pd.DataFrame) -> dict[str, Any]:
    """The predictions for the whole table by each way in; the error's status where there is one."""
    server = create_asgi(app, model=trained, settings=Serve(access_log=False))
    await server.start_models()
    names = list(table.columns)
    records = to_json_value(table.astype(object).to_dict("records"))
    lists: dict[str, Any] = to_json_value(table.astype(object).to_dict("list"))
    json = {"content-type": "application/json"}
    bodies: dict[str, tuple[bytes, dict[str, str]]] = {
        "records": (msgspec.json.encode({"inputs": records}), json),
        "rows": (msgspec.json.encode([[record[name] for name in names] for record in records]), json),
        "columns": (msgspec.json.encode({"inputs": lists}), json),
    }
    texts = table.select_dtypes(["object", "str", "string", "category"])
    if (
        not texts.isna().to_numpy().any() and not (texts == "").to_numpy().any()
    ):  # a CSV has no form of its own for these
        bodies["csv"] = (table.to_csv(index=False).encode(), {"content-type": "text/csv"})
    if not any(
        isinstance(dtype, pd.CategoricalDtype) and str(dtype.categories.dtype) != "str" for dtype in table.dtypes
    ):
        sink = io.BytesIO()
        content = pa.Table.from_pandas(table)
        with pa.ipc.new_stream(sink, content.schema) as writer:
            writer.write_table(content)
        bodies["arrow"] = (sink.getvalue(), {"content-type": "application/vnd.apache.arrow.stream"})
    found: dict[str, Any] = {}
    transport = httpx.ASGITransport(server)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for name, (body, headers) in bodies.items():
            answer = await client.post("/predict", content=body, headers=headers)
            found[name] = answer.json()["predictions"] if answer.status_code == 200 else answer.text
        one_by_one = [
            client.post("/predict", content=msgspec.json.encode({"inputs": [record]}), headers=json)
            for record in records
        ]
        found["alone and at once"] = [
            value
            for answer in await asyncio.gather(*one_by_one)
            for value in (answer.json()["predictions"] if answer.status_code == 200 else [answer.text])
        ]
        metadata = (await client.get("/v2/models/same")).json()
        tensors = [
            {
                "name": tensor["name"],
                "datatype": "BYTES"
                if None in lists[tensor["name"]] and tensor["datatype"][:2] != "FP"
                else tensor["datatype"],
                "shape": [ROWS],
                "data": lists[tensor["name"]],
            }
            for tensor in metadata["inputs"]
        ]
        if not any(None in tensor["data"] and tensor["datatype"][:2] == "FP" for tensor in tensors):
            answer = await client.post("/v2/models/same/infer", json={"inputs": tensors})
            found["v2"] = answer.json()["outputs"][0]["data"] if answer.status_code == 200 else answer.text
    await server.close_models()
    found["app.predict"] = list(app.predict(table))
    found["app.predict records"] = list(app.predict(records))
    found["the reader's table"] = list(app.predict())
    return found


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 12,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_row_gets_the_same_answer_by_every_way_in(data: st.DataObject, model: str) -> None:
    kinds = (*NUMBERS, "bool") if model in ("linear", "onnx") else KINDS  # they take nothing else
    found = data.draw(st.lists(columns(kinds), min_size=1, max_size=3))
    table = pd.DataFrame({f"c{at}": column for at, column in enumerate(found)})
    app = an_app(table, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trained = app.train(test_size=0)
        except MlappError:
            return  # one refusal, in training
        expected = np.asarray(trained.estimator.predict(table), dtype=float)
        for way, predictions in asyncio.run(answers(app, trained, table)).items():
            assert not isinstance(predictions, str), (way, predictions)
            np.testing.assert_allclose(
                np.asarray(predictions, dtype=float), expected, rtol=1e-4, atol=1e-5, err_msg=way
            )
