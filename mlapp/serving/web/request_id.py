"""The id of a request: the client's X-Request-ID if it is valid, otherwise a new one."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

SOUND = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def _draw_prefix() -> None:
    global _prefix
    _prefix = os.urandom(8).hex().encode() + b"-"


_prefix = b""
_draw_prefix()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_draw_prefix)
_numbers = itertools.count()


def choose_request_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The id. New ids are a random prefix of this process and a number, which is unique and cheap."""
    given = headers.get(b"x-request-id")
    if given is not None and SOUND.fullmatch(given):
        return given
    return make_request_id()


def make_request_id() -> bytes:
    return _prefix + b"%08x" % next(_numbers)
