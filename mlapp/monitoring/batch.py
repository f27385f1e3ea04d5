"""A batch that was answered, as the recorder keeps it until it is counted: few objects for many requests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

_LISTS = frozenset((list,))


class RecordedBatch(NamedTuple):
    """Features and predictions of one call of a model.

    Attributes:
        parts: the features of the requests that were answered, in order.
        predictions: one a row of the parts.
        seconds: that the call took.
        at: when it was answered, in seconds since 1970.
    """

    model: Any
    parts: Sequence[Any]
    predictions: Sequence[Any]
    seconds: float
    at: float


def make_batch(
    model: Any, parts: Sequence[Any], results: Sequence[Any], seconds: float, at: float, *, is_compact: bool
) -> RecordedBatch | None:
    """The part of a batch that was answered with predictions; None where nothing was.

    Args:
        results: for each part its predictions, or an error.
        is_compact: join the parts where possible; requests are no longer distinguished.
    """
    if not _LISTS.issuperset(map(type, results)):
        answered = [pair for pair in zip(parts, results, strict=True) if isinstance(pair[1], Sequence)]
        if not answered:
            return None
        parts, results = [part for part, _ in answered], [result for _, result in answered]
    predictions = results[0] if len(results) == 1 else list(chain.from_iterable(results))
    return RecordedBatch(model, model.join_parts(parts) if is_compact else parts, predictions, seconds, at)
