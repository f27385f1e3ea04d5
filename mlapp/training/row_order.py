"""Refuses stages that return rows in another order, as the server pairs rows and answers by position."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError


def require_row_order(before: Any, after: Any, title: str) -> None:
    """Check that a stage's pandas result has the rows of its pandas input in their order.

    Args:
        title: the stage's name in errors.

    Raises:
        DataError: the index of the result has the same labels in another order.
    """
    given: Any = getattr(before, "index", None)
    found: Any = getattr(after, "index", None)
    if not hasattr(given, "is_unique") or not hasattr(found, "is_unique") or len(given) != len(found):
        return
    if given.equals(found) or not (given.is_unique and found.is_unique and found.isin(given).all()):
        return
    raise DataError(
        f"{title} returned the rows in another order.",
        "Return them in the order of the features, for example: result.loc[features.index].",
    )
