"""Receives, unpacks and decodes the body of an HTTP request without blocking other requests."""

from __future__ import annotations

from mlapp.schema.part import Part
from mlapp.serving.decoding import media_types
from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.decoding.processes import HUGE
from mlapp.serving.decoding.threads import decode_in_thread
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.web.budget import Budget, read_request_timeout
from mlapp.serving.web.headers import read_content_coding
from mlapp.serving.web.http import Request, decompress_body
from mlapp.serving.web.intake import BYTES_PER_CELL

SMALL = 4096
"""Maximum bytes of a body other than JSON that is decoded in the event loop: each column has a high fixed cost."""

WIDE = 16
"""Minimum columns of rows of numbers, for which simdjson decodes a body of up to 1 MB in the event loop."""


async def receive_request_body(endpoint: Endpoint, request: Request) -> tuple[bytes, Budget]:
    """The decompressed body of a request, and the budget of its decoding.

    Raises:
        HttpError: 400, it is not of its content-encoding; 408, too slow; 413, too large; 415, an unknown encoding;
            503, the server holds too many bodies. ClientDisconnected: the connection was closed before its end.
    """
    settings = endpoint.settings
    budget = Budget(settings, read_request_timeout(request.headers, settings.timeout))
    body = await request.read_body(settings.max_body, budget.timeout)
    encoding = read_content_coding(request.headers)
    if encoding:
        packed = body
        body = await decode_in_thread(
            lambda: decompress_body(packed, encoding, settings.max_body), budget, request.wait_for_disconnect
        )
        request.held.count_at_least(len(body))
    return body, budget


async def decode_request_features(
    endpoint: Endpoint, model: ServedModel, request: Request, body: bytes, budget: Budget
) -> Part:
    """The features in the body of a request.

    Raises:
        HttpError: 400, it cannot be read; 413, it is too large unpacked; 415, an unknown type; 503, the server holds
            too many bodies.
        InputError: it does not fit the schema.
    """
    limit, media = endpoint.settings.max_body, request.media
    is_json = media_types.is_json_type(media)
    if is_json and LARGE <= len(body) < HUGE and model.codec.width >= WIDE:
        numbers = model.codec.decode_numbers(body)
        if numbers is not None:
            budget.take(numbers.rows * model.codec.width)
            return numbers
    max_loop_bytes = LARGE if is_json else SMALL
    part: Part = await endpoint.decoding.decode_features(
        model, media_types.decode_body, body, budget, request.wait_for_disconnect, (media, limit), max_loop_bytes
    )
    request.held.count_at_least(BYTES_PER_CELL * part.rows * model.codec.width)
    return part
