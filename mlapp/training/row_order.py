"""Refuses stages that reorder rows: a server matches rows and predictions by position."""

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
    index_before: Any = getattr(before, "index", None)
    index_after: Any = getattr(after, "index", None)
    if (
        not hasattr(index_before, "is_unique")
        or not hasattr(index_after, "is_unique")
        or len(index_before) != len(index_after)
    ):
        return
    if index_before.equals(index_after) or not (
        index_before.is_unique and index_after.is_unique and index_after.isin(index_before).all()
    ):
        return
    raise DataError(
        f"{title} returned the rows in another order.",
        "Return them in the order of the features, for example: result.loc[features.index].",
    )
