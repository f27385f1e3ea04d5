"""The id of a request: the client's X-Request-ID if it is valid, otherwise a new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count

from mlapp.schema.part import REQUEST_ID

LOW = tuple(b"%03x" % number for number in range(16**3))
"""The last three hexadecimal digits of a number, so that making an id is a single concatenation."""
HIGH = 9
"""Number of the other hexadecimal digits: with `LOW`, enough for centuries at 30,000 requests per second."""


def _make_request_ids() -> Iterator[bytes]:
    """The ids of a process: a random prefix and a number. Most of them are made without running Python code."""
    prefix = os.urandom(8).hex().encode()
    return chain.from_iterable(map((b"%b-%0*x" % (prefix, HIGH, high)).__add__, LOW) for high in count())


def _renew_request_ids() -> None:
    global next_id
    next_id = _make_request_ids().__next__


next_id: Callable[[], bytes]
"""Makes a new id. Use it as an attribute of this module, because a forked process replaces it."""
_renew_request_ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_request_ids)


def choose_request_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The client's id if it is valid, otherwise a new one."""
    client_id = headers.get(b"x-request-id")
    if client_id is not None and REQUEST_ID.fullmatch(client_id):
        return client_id
    return make_request_id()


def make_request_id() -> bytes:
    """A new id."""
    return next_id()
