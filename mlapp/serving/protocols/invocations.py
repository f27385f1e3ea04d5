"""`/invocations` and `/ping`, as clients of MLflow and Amazon SageMaker send them.

https://mlflow.org/docs/latest/genai/serving/ (`dataframe_split`, `dataframe_records`, `instances`, `inputs`, CSV) and
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.schema.rows import Part
from mlapp.serving import large
from mlapp.serving.bodies import is_json, part_of
from mlapp.serving.codec import Codec
from mlapp.serving.endpoint import Endpoint
from mlapp.serving.http import Request, Response
from mlapp.serving.json_body import decode_json, encode_predictions, inputs_of
from mlapp.serving.problems import HttpError
from mlapp.serving.timeouts import deadline

if TYPE_CHECKING:
    from mlapp.serving.application import Application

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def add_routes(application: Application, endpoint: Endpoint) -> None:
    """`/invocations` of one model; and `/ping`, which is of the whole server."""

    async def ping(request: Request) -> Response:
        return Response(b"{}", status=200 if application.is_ready else 503)

    async def invoke(request: Request) -> Response:
        settings = endpoint.settings
        timeout = deadline(request, settings.timeout)
        body = await request.body(settings.max_body, timeout)
        loaded = endpoint.current
        if loaded.is_stream:
            raise HttpError(400, f"'{endpoint.name}' streams its predictions: send to {endpoint.path}.")
        if is_json(request.media):
            part = await endpoint.decode(lambda: _part(loaded.codec, body), len(body))
        else:
            part = await part_of(endpoint, loaded, request.media, body)
        predictions = await endpoint.predict(part, timeout, loaded, request.left)
        return Response(await endpoint.make(lambda: encode_predictions(predictions, b"}"), part.rows))

    application.route("GET", "/ping", ping, is_open=True)
    application.route("POST", f"{endpoint.prefix}/invocations", invoke)


def _part(codec: Codec, body: bytes) -> Part:
    part = large.decode(codec, body, FORMS[1:]) or _large_split(codec, body)
    return part or codec.accept(_inputs(body))


def _large_split(codec: Codec, body: bytes) -> Part | None:
    """The features in a large body that is a `dataframe_split`; None for any other, and for one that is wrong."""
    if len(body) < large.LARGE:
        return None
    try:
        text = bytes(msgspec.json.decode(body, type=_SplitBody).dataframe_split.data)
        columns = decode_json(body.replace(text, b"0", 1))["dataframe_split"].get("columns")
        if columns is None:
            return large.decode_list(codec, text)
        return large.decode_list(codec, text, _arranged(columns, codec.predictor.schema.features.names))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, HttpError):
        return None


class _Split(msgspec.Struct):
    data: msgspec.Raw


class _SplitBody(msgspec.Struct, forbid_unknown_fields=True):
    dataframe_split: _Split


def _arranged(columns: Any, names: list[str]) -> Callable[[list[Any]], list[Any]]:
    """What makes rows of the training's order of a split's rows; or records, to be told what is wrong with them."""
    given = list(map(str, columns)) if isinstance(columns, list) else []
    if len(given) < 2 or sorted(given) != sorted(names):
        return lambda rows: _split({"columns": columns, "data": rows})
    in_order = itemgetter(*map(given.index, names))

    def arrange(rows: list[Any]) -> list[Any]:
        if set(map(type, rows)) == {list} and set(map(len, rows)) == {len(given)}:
            return list(map(in_order, rows))
        return _split({"columns": columns, "data": rows})

    return arrange


def _inputs(body: bytes) -> Any:
    """The inputs in MLflow's JSON.

    Raises:
        HttpError: 400, not JSON; 422, none of its forms, or parameters, which a predictor here does not take.
    """
    content = decode_json(body)
    if not isinstance(content, dict):
        return inputs_of(body)
    if content.get("params") not in (None, {}):
        raise HttpError(422, "'params' are given; the predictor takes none.")
    given = [form for form in FORMS if form in content]
    if len(given) != 1:
        raise HttpError(422, f"The body must have one of {', '.join(FORMS)}; it has {', '.join(given) or 'none'}.")
    value = content[given[0]]
    if given[0] == "dataframe_split":
        return _split(value)
    return value


def _split(value: Any) -> list[Any]:
    columns, data = (value.get("columns"), value.get("data")) if isinstance(value, dict) else (None, None)
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise HttpError(422, "dataframe_split has no 'data' with a list for each row.")
    if columns is None:
        return data
    if not isinstance(columns, list) or any(len(row) != len(columns) for row in data):
        raise HttpError(422, "dataframe_split has rows that are not as long as its 'columns'.")
    names = [str(column) for column in columns]
    if len(set(names)) < len(names):
        raise HttpError(422, "dataframe_split has a column twice in its 'columns'.")
    return [dict(zip(names, row, strict=True)) for row in data]
