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
MOST_OBJECTS = 100_000
"""Maximum JSON objects of a large request (its tensors and their parameters), which are decoded in one call."""
LONGEST_LENGTH = 18
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


class OutputWanted(msgspec.Struct):
    name: str
    parameters: Options = {}


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[OutputWanted] | None = None
    parameters: Options = {}


class LargeRequest(InferRequest):
    """The JSON part of a request with large tensors."""

    inputs: list[LargeTensor]  # type: ignore[assignment]


def accept_v2_tensors(codec: Codec, given: list[Tensor]) -> Part:
    """The features in a request's tensors.

    Raises:
        HttpError: 400, they are not the model's tensors. InputError: they do not fit the schema.
    """
    check_body_width(len(given), codec)
    return codec.accept_inputs(convert_tensors_to_inputs(given, codec))


def find_v2_json_end(request: Request, body: bytes) -> int:
    """The position in a body at which its JSON part ends.

    Raises:
        HttpError: 400, the header is not a position in the body.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return len(body)
    if not given.isdigit() or len(given) > LONGEST_LENGTH or int(given) > len(body):
        raise HttpError(400, "Inference-Header-Content-Length is not a length within the body.")
    return int(given)


def decode_v2_request(codec: Codec, body: bytes, budget: Budget, split: int) -> tuple[InferRequest, Part]:
    """A request's JSON, which ends at `split`, without its tensors, and the features in the tensors."""
    asked, given = _parse_v2_request(body, split, budget)
    asked = InferRequest([], asked.id, asked.outputs, asked.parameters)
    return asked, accept_v2_tensors(codec, given)


def _parse_v2_request(body: bytes, split: int, budget: Budget) -> tuple[InferRequest, list[Tensor]]:
    """A request's JSON, which ends at `split`, and its tensors."""
    text, rest = body[:split], body[split:]
    if split >= LARGE:
        if text.count(b"{") > MOST_OBJECTS:
            raise HttpError(413, f"The request has more than {MOST_OBJECTS} tensors and parameters.")
        try:
            asked: InferRequest = msgspec.json.decode(text, type=LargeRequest)
            return asked, _read_v2_tensors(asked, rest, budget)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        bound_json_values(text)
    try:
        asked = msgspec.json.decode(text, type=InferRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"The body is not a request of the Open Inference Protocol: {error}") from None
    return asked, _read_v2_tensors(asked, rest, budget)


def _read_v2_tensors(asked: InferRequest, rest: bytes, budget: Budget) -> list[Tensor]:
    found, at = [], 0
    for given in asked.inputs:
        budget.check()
        size = given.parameters.get("binary_data_size")
        if size is None:
            if given.data is None:
                raise HttpError(400, f"Tensor '{given.name:.60}' has no data.")
            if isinstance(given.data, msgspec.Raw):
                found.append(decode_json_tensor(given.name, given.datatype, given.shape, bytes(given.data), budget))
            else:
                found.append(make_tensor_from_values(given.name, given.datatype, given.shape, given.data, budget))
            continue
        if not isinstance(size, int) or size < 0 or at + size > len(rest):
            raise HttpError(400, f"Tensor '{given.name:.60}': binary_data_size does not match the body.")
        found.append(make_tensor_from_raw(given.name, given.datatype, given.shape, rest[at : at + size], budget))
        at += size
    if at != len(rest):
        raise HttpError(400, f"The body has {len(rest) - at} bytes after its tensors.")
    return found
