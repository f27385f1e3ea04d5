"""Decodes the inputs in JSON bodies, and encodes predictions as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from mlapp.errors import InputError, Problem
from mlapp.monitoring.business_keys import MOST_KEYS, are_business_keys
from mlapp.normalization import MANY, estimate_json_values
from mlapp.schema.json_values import to_json_value
from mlapp.serving.web.problems import HttpError

INPUTS = "inputs"
FEATURES = "features"
"""UnionML's key: whole rows, and the answer is a bare list."""
KEYS = (INPUTS, FEATURES)
"""Keys that may hold the inputs."""
MAX_VALUES_AT_ONCE = 2_000_000
"""Maximum values of a body that is decoded in one call: no other thread runs during the call."""
BUSINESS_KEYS = "keys"
"""Key of the caller's own identifiers of the rows, by which later truths refer to them."""
SPACE = b" \t\r\n"
BOM = b"\xef\xbb\xbf"
_NUMBERS = frozenset((int, float, bool))
_encode = msgspec.json.Encoder(enc_hook=to_json_value).encode


class DuplicateKeyError(Exception):
    """An object of the body has a duplicate key."""


def extract_json_body_inputs(body: bytes) -> Any:
    """The inputs in a JSON body; see `extract_named_inputs`."""
    return _find_json_body_inputs(body, KEYS)[0]


def extract_named_inputs(body: bytes) -> tuple[Any, str, Any]:
    """The inputs in a JSON body, their key, and the business keys or None.

    Raises:
        HttpError: 400, it is not JSON; 422, it is neither a list nor such an object.
    """
    return _find_json_body_inputs(body, (*KEYS, BUSINESS_KEYS))


def _find_json_body_inputs(body: bytes, allowed_keys: Sequence[str]) -> tuple[Any, str, Any]:
    """The inputs in a JSON body, a bare list or the value of `inputs` (UnionML: `features`), and that key.

    A byte-order mark is skipped. A duplicate key is refused, because parsers disagree on which of its values counts.

    Raises:
        HttpError: 400, it is not JSON; 422, it is neither a list nor such an object.
    """
    content = decode_json(body)
    if isinstance(content, list):
        return content, "", None
    if not isinstance(content, dict):
        raise HttpError(422, f'The body is {_describe_json_body_type(content)}. Send {{"inputs": […]}} or a list.')
    input_keys = [key for key in KEYS if key in content]
    if len(input_keys) != 1:
        problem = "both 'inputs' and 'features'" if input_keys else "no 'inputs'"
        raise HttpError(
            422,
            f'The body has {problem}. Send {{"inputs": […]}}.',
            [Problem(f"the body has {problem}", field="inputs")],
        )
    if unknown := [key for key in content if key not in allowed_keys]:
        raise HttpError(
            422,
            f"The body has an unknown key '{unknown[0]:.60}' next to '{input_keys[0]}'.",
            [Problem("unknown key", field=key[:60]) for key in unknown[:10]],
        )
    return content[input_keys[0]], input_keys[0], content.get(BUSINESS_KEYS)


def decode_json(body: bytes) -> Any:
    """The value in a JSON text.

    Raises:
        HttpError: 400, it is not JSON (NaN and Infinity are not), nested too deep, or has a key twice.
    """
    body = body.removeprefix(BOM)
    if not body.strip():
        raise HttpError(400, 'The body is empty. Send {"inputs": […]} as JSON.')
    try:
        content = msgspec.json.decode(body)
        key_count = body.translate(None, SPACE).count(b'":')
        if _count_json_body_keys(content, key_count) < key_count:
            json.loads(body, object_pairs_hook=_refuse_duplicate_keys)
        return content
    except RecursionError:
        raise HttpError(400, "The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise HttpError(400, "The body is not UTF-8.") from None
    except DuplicateKeyError as error:
        raise HttpError(400, f"The body has the key '{error!s:.60}' twice in one object.") from None
    except (msgspec.DecodeError, ValueError) as error:
        hint = " JSON has no NaN and no Infinity: send null." if re.search(rb"NaN|Infinity", body[:100_000]) else ""
        raise HttpError(400, f"The body is not JSON: {error}.{hint}") from None


def bound_json_values(body: bytes, limit: int = MAX_VALUES_AT_ONCE) -> int:
    """An upper bound of the number of values in a JSON text: a comma, colon or bracket precedes each value.

    Raises:
        HttpError: 413, there are too many to decode in one call without blocking the server.
    """
    bound = body.count(b",") + body.count(b":") + body.count(b"[") + body.count(b"{")
    if bound > limit:
        raise HttpError(
            413, f"The body has more than {limit} values in a form that must be read as a whole. Send rows."
        )
    return bound


def check_business_keys(keys: Any, rows: int) -> Any:
    """Business keys: one object for all rows, or a list with one per row.

    Raises:
        InputError: they are neither.
    """
    if are_business_keys(keys):
        return keys
    if isinstance(keys, list) and len(keys) == rows and all(map(are_business_keys, keys)):
        return keys
    expected = f"an object of at most {MOST_KEYS} strings and numbers"
    raise InputError([Problem(f"keys is neither {expected} nor a list with one such object per row", field="keys")])


def encode_predictions(predictions: Sequence[Any], tail: bytes) -> bytes:
    """The answer's body: `predictions`, then the constant part of all answers."""
    return encode_json_body_list(predictions, b'{"predictions":', tail)


def encode_answer(predictions: Sequence[Any], tail: bytes, *, is_unionml: bool) -> bytes:
    """The answer's body, in the form of the client's request."""
    return encode_json_body_list(predictions) if is_unionml else encode_predictions(predictions, tail)


def encode_json_body_numbers(values: Sequence[Any]) -> bytes | None:
    """The JSON of several numbers and booleans, with commas between them; None if there are other values."""
    return encode_json(values)[1:-1] if _NUMBERS.issuperset(map(type, values)) else None


def encode_json_body_list(values: Sequence[Any], before: bytes = b"", after: bytes = b"") -> bytes:
    """JSON of a list or an array between two texts, encoded in parts so that other threads can run in between."""
    if (count := estimate_json_values(values)) <= MANY:
        return b"".join((before, encode_json(values[:]), after))
    step = MANY * len(values) // count
    if step:
        parts = [encode_json(values[at : at + step])[1:-1] for at in range(0, len(values), step)]
    else:  # a value alone is large, such as the pixels of an image
        parts = [encode_json_body_list(value) if type(value) is list else encode_json(value) for value in values]
    parts[0] = b"".join((before, b"[", parts[0]))
    parts[-1] = b"".join((parts[-1], b"]", after))
    return b",".join(parts)  # for many bytes it lets other threads run, unlike `+`


def encode_json(value: Any) -> bytes:
    """JSON of a value. NumPy's and pandas' values are encoded like Python's; NaN and infinity are null."""
    try:
        return _encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError):  # keys that are not texts, integers beyond 64 bits
        return json.dumps(to_json_value(value), allow_nan=False, separators=(",", ":"), default=str).encode()


def _count_json_body_keys(content: Any, limit: int) -> int:
    """The number of keys of the objects in `content`, level by level until there are `limit`.

    A duplicate key counts once. `limit` is the number of keys in the text: quotes before a colon.
    """
    count, level = 0, [content] if type(content) in (dict, list) else []
    while level and count < limit:
        inner: list[Any] = []
        for value in level:
            if type(value) is dict:
                count += len(value)
                value = value.values()
            inner += [item for item in value if type(item) in (dict, list)]
        level = inner
    return count


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        earlier: set[str] = set()
        raise DuplicateKeyError(next(name for name in names if name in earlier or earlier.add(name)))  # type: ignore[func-returns-value]
    return record


def _describe_json_body_type(value: Any) -> str:
    return {str: "a string", bool: "true or false", type(None): "null"}.get(type(value), "a number")
