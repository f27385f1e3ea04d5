"""An app behind a URL prefix: the current model, its queue, and its replacement by another version."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import msgspec

from mlapp.config import Serve
from mlapp.errors import MlappError, ModelError, translate_user_errors
from mlapp.monitoring.recorder import Recorder
from mlapp.normalization import MANY
from mlapp.pipeline import Pipeline
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.inference.batcher import Batcher
from mlapp.serving.inference.body_decoding import BodyDecoding
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.inference.streams import Streams
from mlapp.serving.inference.user_coroutine import run_user_coroutine
from mlapp.serving.observability.metrics import Metrics, ModelMetrics
from mlapp.serving.observability.tracing import BatchSpans, Tracing
from mlapp.serving.web.http import run_until_disconnect
from mlapp.serving.web.problems import HttpError

log = logging.getLogger("mlapp.serving")
T = TypeVar("T")
PATIENCE = 1.0
"""Seconds of the first call, above which a second call is not made to measure the model's speed."""


class Endpoint:
    """Predictions of one app.

    Args:
        prefix: of its URLs: empty, or such as `/digits`.
        model: the first model.
        tracing: makes spans of the calls of the model.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        model: ServedModel,
        settings: Serve,
        metrics: Metrics,
        prefix: str = "",
        tracing: Tracing | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.name = pipeline.name
        self.prefix = prefix
        self.path = f"{prefix}/predict"
        self.settings = settings
        self.has_loader = pipeline.stage("feature_loader") is not None
        """Whether the app has a feature_loader."""
        self.decoding = BodyDecoding(has_loader=self.has_loader)
        self.server_metrics = metrics
        self.metrics = ModelMetrics(metrics, pipeline.name)
        self.current = model
        self.metrics.set_version(model.version)
        options = pipeline.predictor_options
        max_batch = options.max_batch or settings.max_batch
        self.batcher = Batcher(
            self.metrics,
            batch=options.batch,
            max_batch=max_batch,
            batch_wait=settings.batch_wait if options.wait is None else options.wait,
            queue=settings.queue,
            max_wait=settings.max_wait,
            spans=None if tracing is None else BatchSpans(tracing, self.name),
        )
        self.recorder: Recorder | None = None
        self._is_traced = tracing is not None
        self._is_warm = False
        self.is_plain = False
        """Whether the fast path can serve it: no feature_loader, no stream, no tracing, and the model is warm."""
        self._warming: asyncio.Lock | None = None
        self.streams = Streams(self.metrics, settings.queue or max_batch)

    @property
    def is_ready(self) -> bool:
        """Whether the model has predicted its own example."""
        return self._is_warm

    async def start_model(self) -> None:
        """Warm the model; a second call does nothing.

        Raises:
            ModelError, UserCodeError: it cannot predict its own example.
        """
        if self._warming is None:
            self._warming = asyncio.Lock()
        async with self._warming:
            if not self._is_warm:
                await self.warm_model(self.current)
                self._is_warm = True
                self._set_plain()

    def _set_plain(self) -> None:
        self.is_plain = not (self._is_traced or self.has_loader or self.current.is_stream) and self._is_warm

    def switch_model(self, model: ServedModel) -> None:
        """Replace the model. Waiting requests stay with the model that they were checked against."""
        old = self.current
        self.current = model
        self._set_plain()
        self.metrics.set_version(model.version)
        self._watch_model(model)
        log.info("%s: version %s now answers instead of %s", self.name, model.version, old.version)

    def record_with(self, recorder: Recorder) -> None:
        """Record predictions and refusals from now on."""
        self.recorder = self.batcher.recorder = recorder
        self._watch_model(self.current)

    def _watch_model(self, model: ServedModel) -> None:
        recorder = self.recorder
        if recorder is not None:
            recorder.add_model(model)
            model.codec.on_refusal = partial(recorder.record_refusal, model.version)

    async def warm_model(self, model: ServedModel) -> None:
        """Let a model predict its own example, so that one-time work does not delay the first client.

        Raises:
            ModelError, UserCodeError: it cannot.
        """
        example = self._make_example_inputs(model)
        if example is None or example == [None]:
            return  # the schema has no example: only the feature_loader or the model defines the inputs
        body = encode_json({"inputs": example})
        try:
            part = model.codec.decode_json(body)
            for _ in range(2):
                started = time.perf_counter()
                await self._predict_once(model, part)
                seconds = time.perf_counter() - started
                if seconds > PATIENCE:
                    break
        except (MlappError, HttpError) as error:
            reason = error.what if isinstance(error, MlappError) else error.detail
            if any(field.is_redacted for field in model.predictor.schema.features.fields):
                log.warning("%s: not warmed up: its example has placeholders (monitor.columns): %s", self.name, reason)
                return
            raise ModelError(
                f"Version {model.version} of '{self.name}' cannot predict its own example: {reason}",
                "Fix the predictor, or serve another version: --model.",
            ) from error
        self.batcher.record_call(seconds, part.rows)

    async def _predict_once(self, model: ServedModel, part: Part) -> None:
        features = model.codec.combine_parts([part])
        title = model.predictor.stage.title
        if model.is_async:
            call = model.predictor.call_predictor(model.predictor.transform_features(features))
            predictions = await run_user_coroutine(call, title)
        else:
            predictions = await self._run_in_thread(lambda: _take_first_stream_item(model, features))
            if inspect.isasyncgen(predictions):
                await run_user_coroutine(_take_first_async_stream_item(predictions), title)
        if not model.is_stream:
            model.list_rows(predictions, part.rows)

    async def encode_answer(self, encode: Callable[[], T], count: int) -> T:
        """Run `encode` to encode predictions: in the event loop, or in a thread if there are many values.

        Args:
            count: number of values.
        """
        return encode() if count <= MANY else await asyncio.to_thread(encode)

    async def predict_part(
        self, part: Part, timeout: float, model: ServedModel, wait_for_disconnect: Callable[[], Any] | None = None
    ) -> Any:
        """The predictions for one request's features, a list with one entry per row.

        Args:
            timeout: seconds until it is a 504.
            wait_for_disconnect: waits until the client disconnects; then the request leaves the queue.

        Raises:
            HttpError: 503, 504. MlappError: the app's code failed.
        """
        if not self._is_warm:
            await self.start_model()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = self.batcher.submit_request(model, part, partial(_settle_prediction, future), timeout)
        try:
            if wait_for_disconnect is None or not self.batcher.can_delay_requests(model):
                return await future
            return await run_until_disconnect(future, wait_for_disconnect)
        finally:
            if not future.done() or future.cancelled():  # gRPC cancels this coroutine if its client disconnects
                self.batcher.cancel_request(request)
            del future  # its error refers to this frame, and the frame to the request's features

    def describe_model(self) -> dict[str, Any]:
        """Description of the model, for people and programs."""
        model = self.current
        schema = model.predictor.schema
        return {
            "model": self.name,
            "version": model.version,
            **model.details,
            "schema": msgspec.to_builtins(schema),
            "example": {"inputs": self._make_example_inputs(model)},
            "raw_inputs": self.has_loader,
            "streams": model.is_stream,
            "differences": [str(difference) for difference in model.list_differences()],
        }

    def _make_example_inputs(self, model: ServedModel) -> Any:
        return model.predictor.schema.example_inputs(has_feature_loader=self.has_loader)

    async def close_endpoint(self) -> None:
        self.batcher.close_batcher()
        self.streams.close_streams()
        self.decoding.close_threads()

    async def _run_in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.batcher.thread, call)


def _settle_prediction(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _take_first_stream_item(model: ServedModel, features: Any) -> Any:
    """The predictor's result. Takes the first item of a synchronous stream, to check that it works."""
    with translate_user_errors(model.predictor.stage.title, is_served=True):
        predictions = model.predict_features(features)
        if model.is_stream and inspect.isgenerator(predictions):
            next(predictions, None)
            predictions.close()
    return predictions


async def _take_first_async_stream_item(predictions: Any) -> None:
    async with aclosing(predictions):
        await anext(predictions, None)
