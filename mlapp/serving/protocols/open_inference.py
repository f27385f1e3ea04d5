"""The Open Inference Protocol v2 over HTTP, with the binary tensor extension.

https://github.com/kserve/open-inference-protocol and, for binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md. Of the extension
extension_model_repository.md only the index is supported: the operator decides which models are loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mlapp import distribution
from mlapp.normalization import estimate_json_values, normalize_to_rows
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_json, encode_json_body_list
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.request_features import receive_request_body
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.protocols import tensors
from mlapp.serving.protocols.open_inference_request import HEADER, InferRequest, decode_v2_request, find_v2_json_end
from mlapp.serving.protocols.tensor_encoding import convert_predictions_to_tensors
from mlapp.serving.protocols.tensors import Tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import ClientDisconnected, Request, Response
from mlapp.serving.web.problems import HttpError, make_http_error

if TYPE_CHECKING:
    from mlapp.serving.application import Application

BINARY = b"application/octet-stream"
EXTENSIONS = ["binary_tensor_data"]
METHODS = {"": ("GET", "HEAD"), "ready": ("GET", "HEAD"), "infer": ("POST",)}
"""Requests about a model, each with its methods."""
T = TypeVar("T")


def add_v2_routes(application: Application) -> None:
    """`/v2/…` for all models of the application."""

    async def answer_v2_server(request: Request) -> Response:
        version = distribution.version()
        return _make_v2_response({"name": "mlapp", "version": version, "extensions": EXTENSIONS})

    async def answer_v2_live(request: Request) -> Response:
        return _make_v2_response({"live": True})

    async def answer_v2_ready(request: Request) -> Response:
        return _make_v2_response({"ready": application.is_ready}, 200 if application.is_ready else 503)

    async def answer_v2_index(request: Request) -> Response:
        state = "READY" if application.is_ready else "UNAVAILABLE"
        models = [(endpoint.name, endpoint.current.version or "") for endpoint in application.endpoints]
        return Response(encode_json([{"name": name, "version": version, "state": state} for name, version in models]))

    async def answer_v2_model(request: Request) -> Response:
        endpoint, word = _parse_v2_path(application, request)
        if word == "infer":
            return await _answer_v2_infer(endpoint, request)
        if not word:
            return _make_v2_response(make_v2_metadata(endpoint))
        is_ready = application.is_ready
        return _make_v2_response({"name": endpoint.name, "ready": is_ready}, 200 if is_ready else 503)

    application.add_route("GET", "/v2", answer_v2_server)
    application.add_route("GET", "/v2/", answer_v2_server)
    application.add_route("GET", "/v2/health/live", answer_v2_live, is_open=True)
    application.add_route("GET", "/v2/health/ready", answer_v2_ready, is_open=True)
    application.add_route("POST", "/v2/repository/index", answer_v2_index)
    application.add_route("*", "/v2/models/*", answer_errors_as_v2(answer_v2_model))


def find_v2_model(application: Application, name: str, version: str | None) -> Endpoint:
    """The endpoint of the model with a name.

    Raises:
        HttpError: 404, no such model, or another version is served now.
    """
    for endpoint in application.endpoints:
        if endpoint.name == name:
            if version and version != endpoint.current.version:
                raise HttpError(404, f"'{name}' answers with version {endpoint.current.version}, not {version:.60}.")
            return endpoint
    names = ", ".join(endpoint.name for endpoint in application.endpoints)
    raise HttpError(404, f"There is no model '{name:.60}'; this server has {names}.")


def make_v2_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """The protocol's description of a model."""
    model = endpoint.current
    schema = model.predictor.schema
    return {
        "name": endpoint.name,
        "versions": [model.version] if model.version else [],
        "platform": f"mlapp_{model.predictor.framework.name}",
        "inputs": tensors.describe_tensors(schema.features, tensors.INPUTS),
        "outputs": tensors.describe_tensors(schema.predictions, tensors.OUTPUTS),
    }


async def predict_tensors(
    endpoint: Endpoint,
    decode: Callable[..., tuple[T, Part]],
    body: bytes,
    budget: Budget,
    wait_for_disconnect: Callable[[], Awaitable[None]] | None = None,
    identity: bytes | None = None,
    arguments: tuple[Any, ...] = (),
) -> tuple[T, list[Tensor], str]:
    """Decode a body, and predict its features.

    Returns:
        The request's other fields, the predictions as tensors, and the model's version.

    Args:
        decode: as for `BodyDecoding.decode_features`; returns the request's other fields too.
        identity: the request's id, for the prediction log.
        arguments: further arguments of `decode`.

    Raises:
        HttpError, MlappError: as for `/predict`; 400 for a predictor that yields.
    """
    model = endpoint.current
    if model.is_stream:
        raise HttpError(400, f"'{endpoint.name}' streams its predictions: send to {endpoint.path}.")
    fields, part = await endpoint.decoding.decode_features(model, decode, body, budget, wait_for_disconnect, arguments)
    part.id = identity
    return (
        fields,
        await predict_open_inference_tensors(endpoint, model, part, budget, wait_for_disconnect),
        model.version or "",
    )


async def predict_open_inference_tensors(
    endpoint: Endpoint,
    model: ServedModel,
    part: Part,
    budget: Budget,
    wait_for_disconnect: Callable[[], Awaitable[None]] | None = None,
) -> list[Tensor]:
    """Predictions for a request's features, as tensors. Errors are those of `Endpoint.predict_part`."""
    predictions = await endpoint.predict_part(part, budget.remaining, model, wait_for_disconnect)
    schema = model.predictor.schema.predictions
    count = estimate_json_values(predictions)
    return await endpoint.encode_answer(lambda: convert_predictions_to_tensors(predictions, schema), count)


def answer_errors_as_v2(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Convert problems to the protocol's form, `{"error": …}`, which its clients expect."""

    async def answer_or_error(request: Request) -> Response:
        try:
            return await handler(request)
        except (ClientDisconnected, asyncio.CancelledError):
            raise
        except Exception as error:  # unexpected errors have the protocol's form too
            problem = make_http_error(error)
            status = 400 if problem.status == 422 else problem.status
            return Response(encode_json({"error": problem.detail}), status=status, headers=list(problem.headers))

    return answer_or_error


async def _answer_v2_infer(endpoint: Endpoint, request: Request) -> Response:
    body, budget = await receive_request_body(endpoint, request)
    split = find_v2_json_end(request, body)
    infer_request, outputs, version = await predict_tensors(
        endpoint, decode_v2_request, body, budget, request.wait_for_disconnect, request.identity, (split,)
    )
    size = sum(output.array.size for output in outputs)
    return await endpoint.encode_answer(lambda: _make_v2_answer(endpoint.name, version, infer_request, outputs), size)


def _make_v2_answer(name: str, version: str, infer_request: InferRequest, outputs: list[Tensor]) -> Response:
    all_binary = infer_request.parameters.get("binary_data_output") is True
    requested = (
        None if infer_request.outputs is None else {output.name: output.parameters for output in infer_request.outputs}
    )
    if requested is not None:
        output_names = {output.name for output in outputs}
        if missing := [name for name in requested if name not in output_names]:
            raise HttpError(
                400, f"There is no output '{missing[0]:.60}'; the outputs are {', '.join(sorted(output_names))}."
            )
        outputs = [output for output in outputs if output.name in requested]
    entries: list[bytes] = []
    binary: list[bytes] = []
    for output in outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if (requested or {}).get(output.name, {}).get("binary_data", all_binary) is True:
            raw = output.raw_bytes()
            entry["parameters"] = {"binary_data_size": len(raw)}
            entries.append(encode_json(entry))
            binary.append(raw)
        else:
            flat = output.array.ravel()
            is_plain = flat.dtype.kind in "biuf"  # listed some at a time
            values = flat if is_plain else normalize_to_rows(flat, output.name)
            entries.append(encode_json_body_list(values, encode_json(entry)[:-1] + b',"data":', b"}"))
    start = encode_json({"model_name": name, "model_version": version})[:-1] + b',"outputs":['
    end = b"]}" if infer_request.id is None else b'],"id":' + encode_json(infer_request.id) + b"}"
    head = b"".join((start, b",".join(entries), end))  # for many bytes it lets other threads run, unlike an encoder
    if not binary:
        return Response(head)
    return Response(b"".join((head, *binary)), BINARY, headers=[(HEADER, b"%d" % len(head))])


def _parse_v2_path(application: Application, request: Request) -> tuple[Endpoint, str]:
    """The model of `NAME[/versions/V][/WORD]`, and the word, one of `METHODS`.

    Raises:
        HttpError: 404, the path, model or version does not exist; 405, wrong method.
    """
    name, *words = [part for part in request.tail.split("/") if part] or [""]
    version = words[1] if len(words) >= 2 and words[0] == "versions" else None
    word = "/".join(words[2:] if version else words)
    endpoint = find_v2_model(application, name, version)
    allowed = METHODS.get(word)
    if allowed is None:
        raise HttpError(404, f"There is no /v2/models/{request.tail:.100}.")
    if request.method not in allowed:
        headers = [(b"allow", ", ".join(allowed).encode())]
        raise HttpError(405, f"/v2/models/{request.tail:.100} takes {' and '.join(allowed)}.", headers=headers)
    return endpoint, word


def _make_v2_response(content: dict[str, Any], status: int = 200) -> Response:
    return Response(encode_json(content), status=status)
