"""The features of one request, before they become part of a batch."""

from __future__ import annotations

import re
from typing import Any

import msgspec

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""A valid id of a request."""


class Part(msgspec.Struct, eq=False, gc=False):
    """The features of one request: packed cells, tuples of cells, or a finished table, array or list.

    `is_unionml` is set for a client of UnionML, which expects a bare list as the answer.
    `id` is the request's id, and `keys` are its business keys, for the prediction log.
    `own_ids` is set in the first part of a batch: the number of its requests, if none has keys and this process made
    all of their ids, in ascending order; otherwise 0.
    """

    rows: int
    packed: bytes | memoryview | None = None
    tuples: list[tuple[Any, ...]] | None = None
    features: Any = None
    is_unionml: bool = False
    id: bytes | None = None
    keys: Any = None
    own_ids: int = 0
