"""The body of a request of the Open Inference Protocol v2: JSON, and the tensors in it or in bytes after it."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.schema.part import Part
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.json_body import bound_json_values
from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.decoding.media_types import check_body_width
from mlapp.serving.protocols.tensor_decoding import (
    convert_tensors_to_inputs,
    decode_json_tensor,
    make_tensor_from_raw,
    make_tensor_from_values,
)
from mlapp.serving.protocols.tensors import Tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import Request
from mlapp.serving.web.problems import HttpError

HEADER = b"inference-header-content-length"
Options = dict[str, Any]
MAX_OBJECTS = 100_000
"""Maximum JSON objects of a large request (its tensors and their parameters), which are decoded in one call."""
MAX_LENGTH_DIGITS = 18
"""Maximum digits of a length."""


class InputTensor(msgspec.Struct):
    """A tensor of a request. Its values are in `data`, or after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: Options = {}


class LargeTensor(InputTensor):
    """A tensor with values that are not decoded yet."""

    data: msgspec.Raw = msgspec.Raw()  # type: ignore[assignment]


class RequestedOutput(msgspec.Struct):
    name: str
    parameters: Options = {}


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: Options = {}


class LargeRequest(InferRequest):
    """The JSON part of a request with large tensors."""

    inputs: list[LargeTensor]  # type: ignore[assignment]


def accept_v2_tensors(codec: Codec, tensors: list[Tensor]) -> Part:
    """The features in a request's tensors.

    Raises:
        HttpError: 400, they are not the model's tensors. InputError: they do not fit the schema.
    """
    check_body_width(len(tensors), codec)
    return codec.accept_inputs(convert_tensors_to_inputs(tensors, codec))


def find_v2_json_end(request: Request, body: bytes) -> int:
    """The position in a body at which its JSON part ends.

    Raises:
        HttpError: 400, the header is not a position in the body.
    """
    length = request.headers.get(HEADER)
    if length is None:
        return len(body)
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or int(length) > len(body):
        raise HttpError(400, "Inference-Header-Content-Length is not a length within the body.")
    return int(length)


def decode_v2_request(codec: Codec, body: bytes, budget: Budget, split: int) -> tuple[InferRequest, Part]:
    """A request's JSON, which ends at `split`, without its tensors, and the features in the tensors."""
    infer_request, tensors = _parse_v2_request(body, split, budget)
    infer_request = InferRequest([], infer_request.id, infer_request.outputs, infer_request.parameters)
    return infer_request, accept_v2_tensors(codec, tensors)


def _parse_v2_request(body: bytes, split: int, budget: Budget) -> tuple[InferRequest, list[Tensor]]:
    """A request's JSON, which ends at `split`, and its tensors."""
    text, rest = body[:split], body[split:]
    if split >= LARGE:
        if text.count(b"{") > MAX_OBJECTS:
            raise HttpError(413, f"The request has more than {MAX_OBJECTS} tensors and parameters.")
        try:
            infer_request: InferRequest = msgspec.json.decode(text, type=LargeRequest)
            return infer_request, _read_v2_tensors(infer_request, rest, budget)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        bound_json_values(text)
    try:
        infer_request = msgspec.json.decode(text, type=InferRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"The body is not a request of the Open Inference Protocol: {error}") from None
    return infer_request, _read_v2_tensors(infer_request, rest, budget)


def _read_v2_tensors(infer_request: InferRequest, rest: bytes, budget: Budget) -> list[Tensor]:
    tensors, at = [], 0
    for entry in infer_request.inputs:
        budget.check()
        size = entry.parameters.get("binary_data_size")
        if size is None:
            if entry.data is None:
                raise HttpError(400, f"Tensor '{entry.name:.60}' has no data.")
            if isinstance(entry.data, msgspec.Raw):
                tensors.append(decode_json_tensor(entry.name, entry.datatype, entry.shape, bytes(entry.data), budget))
            else:
                tensors.append(make_tensor_from_values(entry.name, entry.datatype, entry.shape, entry.data, budget))
            continue
        if not isinstance(size, int) or size < 0 or at + size > len(rest):
            raise HttpError(400, f"Tensor '{entry.name:.60}': binary_data_size does not match the body.")
        tensors.append(make_tensor_from_raw(entry.name, entry.datatype, entry.shape, rest[at : at + size], budget))
        at += size
    if at != len(rest):
        raise HttpError(400, f"The body has {len(rest) - at} bytes after its tensors.")
    return tensors
