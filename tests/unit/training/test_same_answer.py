"""The same row gets the same answer from every interface, or is refused in training, for any dtype and framework.

MLAPP_SAME_ANSWER=500 tries as many tables as it says; the suite tries a few, the same each time.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import os
import tempfile
import uuid
import warnings
import zlib
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
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

from mlapp import App, normalization, prediction, training
from mlapp.config import Serve
from mlapp.data.export import export_table
from mlapp.errors import DataError, InputError, MlappError
from mlapp.features_file import read_features_file
from mlapp.flyte.batch_prediction import run_predict_step
from mlapp.schema.json_values import to_json_value
from mlapp.serving import create_asgi
from mlapp.serving.protocols import grpc
from mlapp.serving.protocols.messages import find_message_class
from mlapp.store import open_store
from mlapp.training.defaults import convert_decimals_to_floats

EXAMPLES = int(os.environ.get("MLAPP_SAME_ANSWER", "6"))
ROWS = 24
JSON = {"content-type": "application/json"}
FLOATS = [0.0, -0.0, 0.1, 1.5, -2.25, 3.0, 1e-7, 100.0, 65504.0, 1 / 3]
INTEGERS = [0, 1, 2, 3, 5, 7, 100, 127, 11, 13]
LARGE = [0, 1, -1, 2**53 + 1, 2**62, -(2**63), 2**63 - 1, 10, 11, 12]
TEXTS = ["low", "NA", "01234", "a,b", 'q"', "ü\n☃", "None", "nan", "1e5", ""]
TRUTHS = [True, False] * 5
TIMES = [pd.Timestamp("2024-01-31T23:59:59"), *pd.date_range("1969-12-31", periods=9, freq="25h")]
ZONED = [time.tz_localize("UTC") for time in TIMES]
DATES = [time.date() for time in TIMES]
DURATIONS = [pd.Timedelta(hours=hour, seconds=-30) for hour in range(10)]
MONTHS = list(pd.period_range("2024-01", periods=10, freq="M"))
CLOCKS = [datetime.time(hour, 30, second, microsecond) for hour, second, microsecond in [(1, 0, 0), (23, 59, 1)] * 5]
BYTES = [b"a", b"\xff", b"", b"YQ==", b"\x00\n"] * 2
UUIDS = [uuid.UUID(int=2**at) for at in range(10)]


def arrow(kind: pa.DataType) -> pd.ArrowDtype:
    return pd.ArrowDtype(kind)


SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES: dict[str, tuple[Any, list[Any]]] = {
    **{name: (name, INTEGERS) for name in (*SIGNED, *UNSIGNED)},
    **{name: (name, INTEGERS) for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")},
    "large": ("int64", LARGE),
    "large nullable": ("Int64", LARGE),
    "large arrow": (arrow(pa.int64()), LARGE),
    **{name: (name, FLOATS) for name in ("float16", "float32", "float64", "Float32", "Float64")},
    **{
        f"arrow {kind}": (arrow(kind), INTEGERS)
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    **{f"arrow {kind}": (arrow(kind), FLOATS) for kind in (pa.float32(), pa.float64())},
    "bool": ("bool", TRUTHS),
    "boolean": ("boolean", TRUTHS),
    "arrow bool": (arrow(pa.bool_()), TRUTHS),
    "str": ("str", TEXTS),
    "string": ("string", TEXTS),
    "string[pyarrow]": ("string[pyarrow]", TEXTS),
    "arrow string": (arrow(pa.string()), TEXTS),
    "arrow large_string": (arrow(pa.large_string()), TEXTS),
    "objects of texts": ("object", TEXTS),
    "objects of integers": ("object", INTEGERS),
    "objects of floats": ("object", FLOATS),
    "objects of truths": ("object", TRUTHS),
    "objects of dates": ("object", DATES),
    "objects of decimals": ("object", [Decimal(text) for text in ("0.1", "1.5", "2", "3.25", "4")] * 2),
    "objects of lists": ("object", [[1, 2.5], [], ["a", None], [[1]], [True]] * 2),
    "objects of records": ("object", [{"a": 1}, {"b": [1.5]}] * 5),
    "objects of all": ("object", ["a", 1, 1.5, True, "1"] * 2),
    **{f"datetime64[{unit}]": (f"datetime64[{unit}]", TIMES) for unit in ("s", "ms", "us", "ns")},
    **{f"datetime64[us, {zone}]": (f"datetime64[us, {zone}]", ZONED) for zone in ("UTC", "Europe/Berlin", "+02:00")},
    "arrow timestamp": (arrow(pa.timestamp("us")), TIMES),
    "arrow timestamp zoned": (arrow(pa.timestamp("ns", "America/New_York")), ZONED),
    "arrow date32": (arrow(pa.date32()), DATES),
    "arrow decimal": (arrow(pa.decimal128(10, 2)), [Decimal("1.25"), Decimal("2.5")] * 5),
    **{f"timedelta64[{unit}]": (f"timedelta64[{unit}]", DURATIONS) for unit in ("s", "ms", "us", "ns")},
    "arrow duration": (arrow(pa.duration("us")), DURATIONS),
    "period[M]": ("period[M]", MONTHS),
    "period[W]": ("period[W-SUN]", list(pd.period_range("2024-01", periods=10, freq="W"))),
    "objects of times": ("object", CLOCKS),
    "objects of zoned times": ("object", [datetime.time(hour, tzinfo=datetime.UTC) for hour in range(10)]),
    "arrow time": (arrow(pa.time64("us")), CLOCKS),
    "arrow time in nanoseconds": (arrow(pa.time64("ns")), CLOCKS),
    "objects of bytes": ("object", BYTES),
    "arrow binary": (arrow(pa.binary()), BYTES),
    "arrow binary of one size": (arrow(pa.binary(1)), [b"a", b"\xff"] * 5),
    "objects of UUIDs": ("object", UUIDS),
    "objects of timedeltas": ("object", [duration.to_pytimedelta() for duration in DURATIONS]),
    "category": ("category", [text for text in TEXTS if text]),
    "ordered": ("ordered", [text for text in TEXTS if text]),
    "category of integers": ("category", INTEGERS),
    "category of floats": ("category", FLOATS[1:]),
    "category of truths": ("category", TRUTHS),
    "category of times": ("category", TIMES),
    "category of zoned": ("category", ZONED),
    "category of dates": ("category", DATES),
    "category of timedeltas": ("category", DURATIONS),
    "category of periods": ("category", MONTHS),
    "category of clocks": ("category", CLOCKS),
    "category of bytes": ("category", BYTES),
    "category of UUIDs": ("category", UUIDS),
    "category of decimals": ("category", [Decimal("0.1"), Decimal("2.5")] * 5),
    "interval": ("interval", FLOATS),
    "interval of times": ("interval", TIMES),
}
ALONE = ("alone and at once", "app.predict record by record")
"""The ways in that send one row at a time."""
LIMITED = {
    "new.csv": ("objects of lists", "objects of records", "objects of all"),
    "new.parquet": ("objects of records", "category of timedeltas", "category of UUIDs"),
    "Arrow": (
        *("objects of lists", "objects of records", "interval", "category of zoned"),
        *("category of periods", "period[M]", "period[W]", "category of UUIDs"),
    ),
    "v2": ("large nullable", "large arrow"),
    "gRPC": ("large nullable", "large arrow"),
}
"""What a way in refuses, because it has no form for it. It never answers otherwise."""
NEVER_MISSING = {*SIGNED, *UNSIGNED, "bool", "large"}
NUMBERS = (*SIGNED, *UNSIGNED, "float32", "float64", "bool")
BOOSTED = tuple(
    name
    for name in DTYPES
    if not any(word in name for word in ("objects", "time", "date", "period", "decimal", "string", "str"))
)
MODELS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "exact": (LinearRegression, tuple(DTYPES)),
    "linear": (LinearRegression, NUMBERS),
    "onnx": (LinearRegression, NUMBERS),
    "boosting": (
        lambda: HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2, categorical_features="from_dtype"),
        BOOSTED,
    ),
    "encoder": (
        lambda: make_pipeline(
            make_column_transformer((OneHotEncoder(handle_unknown="ignore", sparse_output=False), [0])),
            LinearRegression(),
        ),
        tuple(DTYPES),
    ),
    "xgboost": (lambda: XGBRegressor(n_estimators=3, max_depth=2, enable_categorical=True, n_jobs=1), BOOSTED),
    "lightgbm": (lambda: LGBMRegressor(n_estimators=3, min_child_samples=2, n_jobs=1, verbose=-1), BOOSTED),
}


@st.composite
def columns(draw: st.DrawFn, kinds: tuple[str, ...]) -> tuple[str, pd.Series]:
    """A column of one dtype, with or without missing values, and the name of its kind."""
    kind = draw(st.sampled_from(kinds))
    dtype, known = DTYPES[kind]
    seeds = draw(st.lists(st.integers(0, len(known) - 1), min_size=ROWS, max_size=ROWS))
    values: list[Any] = [known[seed] for seed in [*range(len(known)), *seeds][:ROWS]]
    if draw(st.booleans()) and kind not in NEVER_MISSING:
        values[5] = values[-1] = None
    if dtype == "interval":
        return kind, pd.cut(pd.Series([np.nan if value is None else value for value in values]), 3)
    if dtype in ("category", "ordered"):
        series = pd.Series(pd.Categorical(values))
        return kind, series.cat.as_ordered() if dtype == "ordered" else series
    if dtype == "object":
        if "floats" in kind or "texts" in kind:
            missing = draw(st.sampled_from([None, np.nan, pd.NA]))
            values = [missing if value is None else value for value in values]
        return kind, pd.Series(values, dtype=object)
    return kind, pd.Series(values, dtype=dtype)


def fingerprint(model: Any, features: pd.DataFrame) -> list[int]:
    """A number for each row that tells apart values, their types and the dtypes of their columns."""
    kinds = [
        (str(dtype), str(dtype.categories.dtype), list(map(repr, dtype.categories)), dtype.ordered)
        if isinstance(dtype, pd.CategoricalDtype)
        else "text"
        if str(dtype) in ("str", "object")
        else str(dtype)
        for dtype in features.dtypes
    ]
    columns = [list(map(describe, features.iloc[:, at].astype(object))) for at in range(features.shape[1])]
    return [zlib.crc32(repr((list(features.columns), kinds, row)).encode()) for row in zip(*columns, strict=True)]


def describe(value: Any) -> str:
    if isinstance(value, Decimal):  # models compute with floats, which clients send
        value = float(value)
    return f"{type(value).__name__} {value!r}"


def an_app(table: pd.DataFrame, model: str) -> App:
    app = App("same", target="y")
    target = np.arange(ROWS, dtype=float) % 7
    app.data_reader(lambda: table.assign(y=target))
    build, _ = MODELS[model]

    @app.model(format="onnx" if model == "onnx" else None)
    def make() -> Any:
        return build()

    if model == "exact":
        app.predictor(fingerprint)
        app.trainer(lambda model, features, target: model.fit(np.arange(ROWS).reshape(-1, 1), target))
        app.evaluator(lambda model, features, target: 0.0)
    return app


class Answers:
    """The predictions for a table by each way in; the text of the error where there is one."""

    def __init__(self, app: App, trained: Any, table: pd.DataFrame) -> None:
        self.app, self.trained, self.table = app, trained, table
        self.names = list(table.columns)
        self.records: list[Any] = to_json_value(table.astype(object).to_dict("records"))
        self.lists: dict[str, Any] = to_json_value(table.astype(object).to_dict("list"))
        self.found: dict[str, Any] = {}

    def collect(self, folder: Path) -> dict[str, Any]:
        asyncio.run(self._ask_server())
        self.found["app.predict"] = list(self.app.predict(self.table))
        self.found["app.predict records"] = list(self.app.predict(self.records))
        self.found["app.predict record by record"] = [self.app.predict(record)[0] for record in self.records]
        self.found["the reader's table"] = list(self.app.predict())
        self._ask_version(folder)
        return self.found

    def _ask_version(self, folder: Path) -> None:
        """`mlapp predict --features FILE`, and batch prediction on Flyte, of the version in a store."""
        version = open_store(str(folder / "store"), folder).put(self.trained)
        predictor = prediction.load_predictor(self.app, version)
        files = {
            "new.json": lambda file: file.write_bytes(msgspec.json.encode(self.records)),
            "new.csv": lambda file: export_table(self.table, file),
            "new.parquet": lambda file: export_table(self.table, file),
        }
        if len(self.names) == 1 and self.table.isna().to_numpy().any():
            del files["new.csv"]  # writers put quotes around a missing text then, as around an empty one
        for name, write in files.items():
            try:
                write(folder / name)
            except (pa.ArrowException, MlappError, TypeError):  # the file has no such type
                continue
            try:
                rows = predictor.predict(read_features_file(name, predictor.schema.features, folder))
                self.found[f"mlapp predict {name}"] = normalization.normalize_to_rows(rows, "predictor")
            except (InputError, DataError) as error:
                self.found[f"mlapp predict {name}"] = error.what
        out = folder / "flyte.parquet"
        run_predict_step(self.app, {}, version, out)
        self.found["Flyte batch"] = pd.read_parquet(out)["prediction"].tolist()

    async def _ask_server(self) -> None:
        server = create_asgi(self.app, model=self.trained, settings=Serve(access_log=False))
        await server.start_models()
        transport = httpx.ASGITransport(server)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for name, (body, kind) in self._bodies().items():
                answer = await client.post("/predict", content=body, headers={"content-type": kind})
                self.found[name] = answer.json()["predictions"] if answer.status_code == 200 else answer.text
            one_by_one = [
                client.post("/predict", content=msgspec.json.encode({"inputs": [record]}), headers=JSON)
                for record in self.records
            ]
            self.found["alone and at once"] = [
                value
                for answer in await asyncio.gather(*one_by_one)
                for value in (answer.json()["predictions"] if answer.status_code == 200 else [answer.text])
            ]
            metadata = (await client.get("/v2/models/same")).json()["inputs"]
            tensors = [self._tensor(tensor) for tensor in metadata]
            answer = await client.post("/v2/models/same/infer", json={"inputs": tensors})
            self.found["v2"] = answer.json()["outputs"][0]["data"] if answer.status_code == 200 else answer.text
        for raw in (False, True):
            self.found[f"gRPC {raw=}"] = await self._ask_grpc(server, metadata, raw=raw)
        await server.close_models()

    def _bodies(self) -> dict[str, tuple[bytes, str]]:
        bodies = {
            "records": (msgspec.json.encode({"inputs": self.records}), "application/json"),
            "rows": (
                msgspec.json.encode([[record[name] for name in self.names] for record in self.records]),
                "application/json",
            ),
            "columns": (msgspec.json.encode({"inputs": self.lists}), "application/json"),
        }
        file = io.BytesIO()
        try:
            content = pa.Table.from_pandas(self.table, preserve_index=False)
            with pa.ipc.new_stream(file, content.schema) as writer:
                writer.write_table(content)
            bodies["Arrow"] = (file.getvalue(), "application/vnd.apache.arrow.stream")
        except (pa.ArrowException, TypeError):  # Arrow has no such type
            pass
        return bodies

    def _tensor(self, tensor: dict[str, Any]) -> dict[str, Any]:
        data = self.lists[tensor["name"]]
        lacks = None in data and tensor["datatype"][:2] != "FP"  # the protocol has no other missing number
        return {
            "name": tensor["name"],
            "datatype": "BYTES" if lacks else tensor["datatype"],
            "shape": [ROWS],
            "data": data,
        }

    async def _ask_grpc(self, server: Any, metadata: list[dict[str, Any]], *, raw: bool) -> Any:
        """The protocol has no missing values but NaN, and texts in the place of other objects."""
        request = find_message_class("ModelInferRequest")(model_name="same")
        for tensor in metadata:
            values, datatype = self.lists[tensor["name"]], tensor["datatype"]
            if datatype == "BYTES":
                if not all(isinstance(value, str) for value in values):
                    return None
                values = [value.encode() for value in values]
            elif datatype[:2] == "FP":
                values = [float("nan") if value is None else value for value in values]
            elif None in values:
                return None
            given = request.inputs.add(name=tensor["name"], datatype=datatype, shape=[ROWS])
            if raw and datatype != "BYTES":
                kind = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}
                request.raw_input_contents.append(np.array(values, kind.get(datatype, datatype.lower())).tobytes())
            elif raw:
                request.raw_input_contents.append(
                    b"".join(len(value).to_bytes(4, "little") + value for value in values)
                )
            elif datatype == "FP16":
                return None  # it has no contents of its own
            else:
                getattr(given.contents, grpc.CONTENTS[datatype]).extend(values)
        try:
            answer = await grpc.METHODS["ModelInfer"](
                server, request.SerializeToString(), SimpleNamespace(time_remaining=lambda: None)
            )
        except Exception as error:
            return str(error)
        output = answer.outputs[0]
        dtype = {"FP32": "float32", "FP64": "float64"}.get(output.datatype, output.datatype.lower())
        return np.frombuffer(answer.raw_output_contents[0], dtype).tolist()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 6,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data(), st.sampled_from(sorted(MODELS)))
def test_the_same_row_gets_the_same_answer_by_every_way_in(data: st.DataObject, model: str) -> None:
    column_list = data.draw(st.lists(columns(MODELS[model][1]), min_size=1, max_size=3))
    kinds = [kind for kind, _ in column_list]
    table = pd.DataFrame({f"c{at}": column for at, (_, column) in enumerate(column_list)})
    app = an_app(table, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trained = app._trained = training.run(app, {"test_size": 0}, must_be_savable=True)
        except MlappError:
            return  # one refusal, in training
        seen = convert_decimals_to_floats(table)
        predict = partial(fingerprint, None) if model == "exact" else trained.estimator.predict
        expected = predict(seen)
        # A sum of 32-bit floats depends on the number of rows: in the model's library, without mlapp too.
        alone = np.concatenate([predict(seen.iloc[[at]]) for at in range(ROWS)])
        with tempfile.TemporaryDirectory() as folder:
            answers = Answers(app, trained, table).collect(Path(folder))
    for way, predictions in answers.items():
        if predictions is None:
            continue  # the protocol has no form for a missing value
        if isinstance(predictions, str):
            limits = next((limits for name, limits in LIMITED.items() if name in way), ())
            assert set(limits) & set(kinds), (way, kinds, predictions)
            continue
        np.testing.assert_allclose(
            np.asarray(predictions, dtype=float),
            alone if way in ALONE else expected,
            rtol=1e-4,
            atol=1e-5,
            err_msg=f"{way} {kinds}",
        )
