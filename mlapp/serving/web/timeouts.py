"""The time limit of a request."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlapp.serving.web.problems import HttpError


def read_request_timeout(headers: Mapping[bytes, bytes], most: float) -> float:
    """Seconds that the client allows in `X-Request-Timeout`, limited by the server's timeout.

    Raises:
        HttpError: 400, it is not a positive number.
    """
    given = headers.get(b"x-request-timeout")
    if given is None:
        return most
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise HttpError(400, "X-Request-Timeout is not a positive number of seconds.")
    return min(seconds, most)
