"""`/invocations` and `/ping`, as clients of MLflow and Amazon SageMaker send them.

https://mlflow.org/docs/latest/genai/serving/ (`dataframe_split`, `dataframe_records`, `instances`, `inputs`, CSV) and
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlapp.serving.bodies import is_json, part_of
from mlapp.serving.endpoint import Endpoint
from mlapp.serving.http import Request, Response
from mlapp.serving.json_body import decode_json, encode, inputs_of
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
            part = await endpoint.decode(lambda: loaded.codec.accept(_inputs(body)), len(body))
        else:
            part = await part_of(endpoint, loaded, request.media, body)
        predictions = await endpoint.predict(part, timeout, loaded, request.left)
        return Response(encode({"predictions": predictions}))

    application.route("GET", "/ping", ping, is_open=True)
    application.route("POST", f"{endpoint.prefix}/invocations", invoke)


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


def _split(value: Any) -> Any:
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
