"""`/invocations` and `/ping` for clients of MLflow and Amazon SageMaker.

https://mlflow.org/docs/latest/genai/serving/ (`dataframe_split`, `dataframe_records`, `instances`, `inputs`, CSV) and
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.normalization import estimate_json_values
from mlapp.schema.part import Part
from mlapp.serving.decoding import large_json
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import (
    bound_json_values,
    decode_json,
    encode_predictions,
    extract_json_body_inputs,
)
from mlapp.serving.decoding.media_types import is_json_type
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.request_features import decode_request_features, receive_request_body
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import Request, Response
from mlapp.serving.web.problems import HttpError

if TYPE_CHECKING:
    from mlapp.serving.application import Application

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def add_invocation_routes(application: Application, endpoint: Endpoint) -> None:
    """`/invocations` of one model, and the server's `/ping`."""

    async def answer_ping(request: Request) -> Response:
        return Response(b"{}", status=200 if application.is_ready else 503)

    async def answer_model(request: Request) -> Response:
        return await answer_invocation_request(endpoint, request)

    application.add_route("GET", "/ping", answer_ping, is_open=True)
    application.add_route("POST", f"{endpoint.prefix}/invocations", answer_model)


async def answer_invocation_request(endpoint: Endpoint, request: Request) -> Response:
    """Answer `{"predictions": …}` to inputs in one of `FORMS`, or in any other supported format."""
    body, budget = await receive_request_body(endpoint, request)
    model = endpoint.current
    if model.is_stream:
        raise HttpError(400, f"'{endpoint.name}' streams its predictions: send to {endpoint.path}.")
    if is_json_type(request.media):
        part = await endpoint.decoding.decode_features(
            model, _decode_invocation, body, budget, request.wait_for_disconnect
        )
    else:
        part = await decode_request_features(endpoint, model, request, body, budget)
    part.id = request.identity
    predictions = await endpoint.predict_part(part, budget.remaining, model, request.wait_for_disconnect)
    count = estimate_json_values(predictions)
    return Response(await endpoint.encode_answer(lambda: encode_predictions(predictions, b"}"), count))


def _decode_invocation(codec: Codec, body: bytes, budget: Budget) -> Part:
    part = _decode_large_invocation(codec, body, budget) or large_json.decode_large_json(codec, body, budget, FORMS[1:])
    return part or codec.accept_inputs(_parse_invocation_inputs(body))


def _decode_large_invocation(codec: Codec, body: bytes, budget: Budget) -> Part | None:
    """The features in a large `dataframe_split` body; None for other or invalid bodies."""
    if len(body) < large_json.LARGE:
        return None
    try:
        text = bytes(msgspec.json.decode(body, type=_SplitBody).dataframe_split.data)
        rest = body.replace(text, b"0", 1)
        bound_json_values(rest)
        columns = decode_json(rest)["dataframe_split"].get("columns")
        if columns is None:
            return large_json.decode_large_list(codec, text, budget)
        return large_json.decode_large_list(
            codec, text, budget, _make_invocation_arranger(columns, codec.predictor.schema.features.names)
        )
    except HttpError as error:
        if error.status in (413, 504):
            raise
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class _Split(msgspec.Struct):
    data: msgspec.Raw


class _SplitBody(msgspec.Struct, forbid_unknown_fields=True):
    dataframe_split: _Split


def _make_invocation_arranger(columns: Any, names: list[str]) -> Callable[[list[Any]], list[Any]]:
    """A function that arranges a split's rows in training order, or as records to report errors."""
    column_names = list(map(str, columns)) if isinstance(columns, list) else []
    if len(column_names) < 2 or sorted(column_names) != sorted(names):
        return lambda rows: _parse_invocation_split({"columns": columns, "data": rows})
    in_order = itemgetter(*map(column_names.index, names))

    def arrange_rows(rows: list[Any]) -> list[Any]:
        if set(map(type, rows)) == {list} and set(map(len, rows)) == {len(column_names)}:
            return list(map(in_order, rows))
        return _parse_invocation_split({"columns": columns, "data": rows})

    return arrange_rows


def _parse_invocation_inputs(body: bytes) -> Any:
    """The inputs in MLflow's JSON.

    Raises:
        HttpError: 400, not JSON; 422, not one of its forms, or `parameters`, which predictors do not support.
    """
    content = decode_json(body)
    if not isinstance(content, dict):
        return extract_json_body_inputs(body)
    for name in ("params", "parameters"):  # MLflow's name, and Vertex AI's
        if content.get(name) not in (None, {}):
            raise HttpError(422, f"'{name}' are given; the predictor takes none.")
    forms = [form for form in FORMS if form in content]
    if len(forms) != 1:
        raise HttpError(422, f"The body must have one of {', '.join(FORMS)}; it has {', '.join(forms) or 'none'}.")
    value = content[forms[0]]
    if forms[0] == "dataframe_split":
        return _parse_invocation_split(value)
    return value


def _parse_invocation_split(value: Any) -> list[Any]:
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
