"""Predicts a batch. A failed batch is split in halves again and again, so that only the bad requests fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from mlapp.errors import MlappError, UserCodeError
from mlapp.monitoring.batch import JoinedResults
from mlapp.schema.part import Part
from mlapp.serving.inference.packed_rows import PackedRows
from mlapp.serving.inference.queued_request import QueuedRequest, has_no_waiting_request, split_queued_request_rows
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.web.problems import HttpError

SLICE = 50_000
"""Maximum rows of one request in a single call, if its rows may be predicted separately."""
Attempt = tuple[Sequence[Any], list[tuple[Any, Any]]]
"""The rows or the error of each request, and the predictor's input and result of each successful call."""


def predict_batch(model: ServedModel, parts: list[Part], rows: int) -> tuple[list[Any], Any, Any]:
    """The predictions for all parts, one entry per row, and the predictor's input and result.

    Raises:
        MlappError: the app's code failed.
    """
    features = model.predictor.transform_features(model.codec.combine_parts(parts))
    predictions = model.predictor.call_predictor(features)
    try:
        return model.list_rows(predictions, rows), features, predictions
    except MlappError:
        raise
    except BaseException as error:  # a generator or an object of the app runs only here
        raise UserCodeError(model.predictor.stage.title, error) from error


def predict_in_slices(model: ServedModel, request: QueuedRequest) -> Attempt:
    """Predict a very large request in chunks of rows. A single call would create arrays for all rows, and could not be
    stopped when the client disconnects.

    Raises:
        MlappError: the app's code failed.
    """
    part = request.part
    predictions = PackedRows()
    calls = []
    keeps_calls = bool(model.predictor.pipeline.callbacks)
    for at in range(0, part.rows, SLICE):
        if request.response_complete:
            raise HttpError(504, f"The prediction was not ready within {request.timeout:g} seconds.")
        piece = model.codec.slice_part(part, at, at + SLICE)
        rows, features, result = predict_batch(model, [piece], piece.rows)
        predictions.extend(rows)
        if keeps_calls:
            calls.append((features, result))
    return [predictions], calls


def try_batch(
    model: ServedModel, requests: list[QueuedRequest], rows: int, count_failure: Callable[[], None]
) -> Attempt:
    """Predict requests together as far as possible.

    Args:
        rows: of all items.
        count_failure: called for each failed call that is not split further.
    """
    parts = [request.part for request in requests]
    try:
        if _is_predicted_in_slices(model, parts):
            return predict_in_slices(model, requests[0])
        joined_parts = model.codec.join_parts(parts, rows)
        joined_rows, features, predictions = predict_batch(model, joined_parts, rows)
    except Exception as error:  # each request needs a result, so any error becomes one
        if len(requests) == 1 or has_no_waiting_request(requests):
            count_failure()
            return [error] * len(requests), []
        middle = len(requests) // 2
        first, second = (
            try_batch(model, half, sum(request.part.rows for request in half), count_failure)
            for half in (requests[:middle], requests[middle:])
        )
        return [*first[0], *second[0]], first[1] + second[1]
    results = None if rows == len(requests) else split_queued_request_rows(joined_rows, parts)
    return JoinedResults(joined_parts, joined_rows, results), [(features, predictions)]


async def try_batch_async(
    model: ServedModel, requests: list[QueuedRequest], count_failure: Callable[[], None], thread: Executor
) -> Attempt:
    """As `try_batch`, for an `async def` predictor.

    Args:
        thread: runs a feature_transformer, which is synchronous.
    """
    parts = [item.part for item in requests]
    try:
        if _is_predicted_in_slices(model, parts):
            return await _predict_in_slices_async(model, requests[0], thread)
        rows, features, predictions = await _predict_batch_async(model, parts, thread)
    except Exception as error:  # as in `try_batch`; a cancellation is raised on, because it ends the whole call
        if len(requests) == 1 or has_no_waiting_request(requests):
            count_failure()
            return [error] * len(requests), []
        middle = len(requests) // 2
        first = await try_batch_async(model, requests[:middle], count_failure, thread)
        second = await try_batch_async(model, requests[middle:], count_failure, thread)
        return [*first[0], *second[0]], first[1] + second[1]
    return split_queued_request_rows(rows, parts), [(features, predictions)]


def _is_predicted_in_slices(model: ServedModel, parts: list[Part]) -> bool:
    """Whether there is one part only, with more than `SLICE` rows that can be predicted separately."""
    return len(parts) == 1 and parts[0].rows > SLICE and model.batching and model.codec.can_slice(parts[0])


async def _predict_in_slices_async(model: ServedModel, request: QueuedRequest, thread: Executor) -> Attempt:
    """`predict_in_slices` for an `async def` predictor. Other requests can run between slices."""
    part = request.part
    predictions = PackedRows()
    calls = []
    for at in range(0, part.rows, SLICE):
        piece = model.codec.slice_part(part, at, at + SLICE)
        rows, features, result = await _predict_batch_async(model, [piece], thread)
        predictions.extend(rows)
        if model.predictor.pipeline.callbacks:
            calls.append((features, result))
        await asyncio.sleep(0)
    return [predictions], calls


async def _predict_batch_async(model: ServedModel, parts: list[Part], thread: Executor) -> tuple[list[Any], Any, Any]:
    """`predict_batch` for an `async def` predictor. A thread combines and lists a batch of many rows."""
    features = await _transform_batch(model, parts, thread)
    try:
        predictions = await model.predictor.call_predictor(features)
        rows = sum(part.rows for part in parts)
        if rows > SLICE:
            return await asyncio.to_thread(model.list_rows, predictions, rows), features, predictions
        return model.list_rows(predictions, rows), features, predictions
    except MlappError:
        raise
    except BaseException as error:  # a KeyboardInterrupt that leaves a task ends the event loop
        if isinstance(error, asyncio.CancelledError) and _is_call_cancelled():
            raise
        raise UserCodeError(model.predictor.stage.title, error) from error


def _is_call_cancelled() -> bool:
    """Whether a CancelledError can come from a cancellation of the call, and not only from the predictor.

    Python 3.10 does not tell; then all requests of the call fail: see `Batcher._finish_async_call`.
    """
    if sys.version_info >= (3, 11):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return True


async def _transform_batch(model: ServedModel, parts: list[Part], thread: Executor) -> Any:
    if sum(part.rows for part in parts) > SLICE:
        features = await asyncio.to_thread(model.codec.combine_parts, parts)
    else:
        features = model.codec.combine_parts(parts)
    if model.predictor.pipeline.stage("feature_transformer") is None:
        return model.predictor.transform_features(features)
    return await asyncio.get_running_loop().run_in_executor(thread, model.predictor.transform_features, features)
