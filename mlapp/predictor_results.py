"""Turns the result of a predictor into predictions: awaits it, collects its items, normalizes and counts them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlapp import normalization
from mlapp.errors import DataError, translate_user_errors
from mlapp.pipeline import Stage
from mlapp.schema.feature_containers import count_feature_rows

SAMPLED_ITEMS = 100
"""Maximum items of a stream that training collects: a stream can be endless."""


def finish_predictor_result(result: Any, stage: Stage, *, max_items: int | None = None) -> Any:
    """Await a coroutine, and collect an iterator into a list.

    Args:
        max_items: maximum items of an iterator; all when None.

    Raises:
        UserCodeError: the function raised while it ran.
    """
    with translate_user_errors(stage.title):
        if inspect.isawaitable(result):
            with ThreadPoolExecutor(1) as thread:  # in a notebook, an event loop already runs in this thread
                return thread.submit(lambda: asyncio.run(_await_predictor_result(result))).result()
        if inspect.isasyncgen(result):
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(lambda: asyncio.run(_collect_predictor_stream(result, max_items))).result()
        return list(itertools.islice(result, max_items)) if inspect.isgenerator(result) else result


def normalize_predictor_result(result: Any, features: Any, stage: Stage) -> Any:
    """The predictor's result for features, normalized and checked for its length; items of a stream are unchanged.

    Raises:
        DataError: not one prediction per row; names the predictor and both counts.
    """
    if has_streamed_predictor_results(stage):
        return result
    predictions = normalization.normalize_predictions(result, stage.title)
    rows = count_feature_rows(features)
    if rows is not None and len(predictions) != rows:
        raise wrong_prediction_count_error(stage, len(predictions), rows)
    return predictions


def has_streamed_predictor_results(stage: Stage) -> bool:
    """Whether the predictor yields."""
    return inspect.isgeneratorfunction(stage.function) or inspect.isasyncgenfunction(stage.function)


def wrong_prediction_count_error(stage: Stage, predictions: int, rows: int) -> DataError:
    """The error for a wrong number of predictions."""
    return DataError(
        f"{stage.title} returned {predictions} predictions for {rows} rows.", "Return one prediction per row."
    )


async def _await_predictor_result(result: Any) -> Any:
    return await result


async def _collect_predictor_stream(stream: Any, max_items: int | None) -> list[Any]:
    items: list[Any] = []
    async for item in stream:
        items.append(item)
        if len(items) == max_items:
            await stream.aclose()
            break
    return items
