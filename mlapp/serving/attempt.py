"""Predicting a batch. If that fails, each half is tried by itself, and so on: only the bad requests fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from mlapp.errors import MlappError, UserCodeError
from mlapp.schema.rows import Part
from mlapp.serving.item import Item, are_gone, split
from mlapp.serving.loaded import Loaded

Attempt = tuple[list[Any], list[tuple[Any, Any]]]
"""For each request its rows, or its error; and for each call that went well, what the predictor took and returned."""


def predict(loaded: Loaded, parts: list[Part], rows: int) -> tuple[list[Any], Any, Any]:
    """The predictions for all the parts, one entry a row, and what the predictor took and returned.

    Raises:
        MlappError: the app's code failed.
    """
    features = loaded.predictor.transform(loaded.codec.combine(parts))
    predictions = loaded.predictor.call(features)
    return loaded.rows_of(predictions, rows), features, predictions


def attempt(loaded: Loaded, items: list[Item], failed: Callable[[], None]) -> Attempt:
    """Predict the items together, or as far as they can be.

    Args:
        failed: called for each call that is not tried in halves.
    """
    parts = [item.part for item in items]
    try:
        rows, features, predictions = predict(loaded, parts, sum(part.rows for part in parts))
    except Exception as error:
        if len(items) == 1 or are_gone(items):
            failed()
            return [error] * len(items), []
        middle = len(items) // 2
        first, second = (attempt(loaded, half, failed) for half in (items[:middle], items[middle:]))
        return first[0] + second[0], first[1] + second[1]
    return split(rows, parts), [(features, predictions)]


async def attempt_async(loaded: Loaded, items: list[Item], failed: Callable[[], None], thread: Executor) -> Attempt:
    """As `attempt`, for an `async def` predictor.

    Args:
        thread: where a feature_transformer, which is sync, runs.
    """
    parts = [item.part for item in items]
    try:
        features = await _transformed(loaded, parts, thread)
        try:
            predictions = await loaded.predictor.call(features)
        except MlappError:
            raise
        except Exception as error:
            raise UserCodeError(loaded.predictor.stage.title, error) from error
        rows = loaded.rows_of(predictions, sum(part.rows for part in parts))
    except Exception as error:
        if len(items) == 1 or are_gone(items):
            failed()
            return [error] * len(items), []
        middle = len(items) // 2
        first = await attempt_async(loaded, items[:middle], failed, thread)
        second = await attempt_async(loaded, items[middle:], failed, thread)
        return first[0] + second[0], first[1] + second[1]
    return split(rows, parts), [(features, predictions)]


async def _transformed(loaded: Loaded, parts: list[Part], thread: Executor) -> Any:
    features = loaded.codec.combine(parts)
    if loaded.predictor.pipeline.stage("feature_transformer") is None:
        return loaded.predictor.transform(features)
    return await asyncio.get_running_loop().run_in_executor(thread, loaded.predictor.transform, features)
