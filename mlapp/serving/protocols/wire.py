"""Checks Protocol Buffers (https://protobuf.dev/programming-guides/encoding/) before they are parsed.

An empty nested message takes two bytes on the wire and a hundred in memory, so the number of fields is limited.
"""

from __future__ import annotations

from mlapp.serving.web.problems import HttpError

MAX_FIELDS = 20_000
"""Maximum fields of a request, including those of its tensors: one for each tensor, and a few in each."""
TENSOR = 5
"""Number of the field of ModelInferRequest that holds its tensors."""

NAMES = (1, 2)
"""Numbers of the fields of ModelInferRequest that name the model and its version."""
MAX_NAME_BYTES = 1000
"""Maximum bytes of such a name."""


def check_message(body: bytes) -> dict[int, str]:
    """Check the number of fields of a request, at the top level and in each tensor. Values are not checked.

    Returns:
        The texts of the fields `NAMES`, by their numbers.

    Raises:
        HttpError: 413, too many; 400, it is not Protocol Buffers.
    """
    fields = 0
    texts: dict[int, str] = {}
    pending = [(0, len(body), True)]
    while pending:
        at, end, is_top = pending.pop()
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise HttpError(413, f"The message has more than {MAX_FIELDS} fields.")
            tag, at = _decode_wire_number(body, at, end)
            kind = tag & 7
            if kind == 0:
                _, at = _decode_wire_number(body, at, end)
            elif kind == 2:
                size, at = _decode_wire_number(body, at, end)
                if is_top and tag >> 3 == TENSOR:
                    pending.append((at, min(at + size, end), False))
                elif is_top and tag >> 3 in NAMES and size <= MAX_NAME_BYTES:
                    texts[tag >> 3] = _decode_wire_text(body[at : at + size])
                at += size
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:  # groups, which no message here has
                raise _malformed_wire_error()
        if at > end:
            raise _malformed_wire_error()
    return texts


def _decode_wire_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed_wire_error() from None


def _decode_wire_number(body: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    number = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise _malformed_wire_error()


def _malformed_wire_error() -> HttpError:
    return HttpError(400, "The message is not Protocol Buffers.")
