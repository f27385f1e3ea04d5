"""Splits a large JSON array into chunks of items.

Decoding the whole array in one call would block all other threads and hold every cell as a Python object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CHUNK_BYTES = 128 * 1024
"""Approximate bytes of a chunk, which decodes in a few milliseconds."""
BETWEEN = {
    b"[": re.compile(rb"\]\s*(,)\s*\["),
    b"{": re.compile(rb"\}\s*(,)\s*\{"),
    b'"': re.compile(rb'(?<!\\)"\s*(,)\s*"'),
}
"""Separators of two items, by the first byte of an item. A text can contain one too."""
NUMBERS = re.compile(rb"(,)")
MAX_START_BYTES = 4096
"""Maximum bytes before the first item."""
FIRST = re.compile(rb"\s*\[\s*(?P<item>[^\s\]])")


def cut_json_array(array: bytes) -> Iterator[bytes]:
    """The array, split between items into arrays of about `CHUNK_BYTES` bytes; unsplit if its items differ in form.

    A split inside a text or an item leaves a chunk that is not JSON. So if all chunks are JSON, together they have the
    array's items. Only an array that is not split can be empty.
    """
    first = FIRST.match(array, 0, MAX_START_BYTES)
    start, end = array.find(b"[") + 1, array.rfind(b"]")
    if first is None or end - start < 2 * CHUNK_BYTES:
        yield array
        return
    between = BETWEEN.get(first["item"], NUMBERS)
    at = start + CHUNK_BYTES
    while at < end:
        # Not in one call: an item can be as long as the array.
        cut = between.search(array, at, min(at + CHUNK_BYTES, end))
        if cut is None:
            at += CHUNK_BYTES
            continue
        yield b"[" + array[start : cut.start(1)] + b"]"
        start = cut.end(1)
        at = start + CHUNK_BYTES
    yield b"[" + array[start:end] + b"]"
