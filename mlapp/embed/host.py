"""The model of an app in this process: loaded by the first request, and safe to call from several threads.

The process can fork (gunicorn, uWSGI). Each child has its own loop, locks and metrics, because threads do not survive a
fork. A model that the parent loaded is shared with the children if its framework allows that.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlapp.app import App
from mlapp.config import Serve
from mlapp.embed.loop_thread import LoopThread
from mlapp.embed.metrics import ThreadMetrics
from mlapp.errors import UsageError
from mlapp.model import TrainedModel
from mlapp.monitoring.place import Place
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.recording import make_recorder, open_recording_place
from mlapp.schema.part import Part
from mlapp.serving.decoding.json_body import encode_json
from mlapp.serving.inference import streams
from mlapp.serving.inference.batch_predict import predict_batch
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.inference.version_watcher import VersionWatcher
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.intake import Intake
from mlapp.serving.web.problems import HttpError
from mlapp.serving.web.request_id import make_request_id
from mlapp.store import Store

log = logging.getLogger("mlapp.serving")


def check_follow(model: str | int | TrainedModel, settings: Serve) -> None:
    """Check that a model can be followed.

    Raises:
        UsageError: the model is not an alias, or `serve.refresh` is 0.
    """
    if not isinstance(model, str) or model.isdigit():
        raise UsageError(
            f"follow=True, but model={model!r} is a fixed version.", "Give an alias, such as model='production'."
        )
    if not settings.refresh:
        raise UsageError(
            "follow=True, but serve.refresh is 0, which turns refreshing off.",
            "Set serve.refresh to a number of seconds.",
        )


@dataclass
class ProcessState:
    """State of a host in one process. It looks up `threading.Lock` late, because gevent replaces it at run time."""

    metrics: ThreadMetrics
    intake: Intake
    loop: LoopThread
    intake_lock: threading.Lock = field(default_factory=lambda: threading.Lock())
    loading: threading.Lock = field(default_factory=lambda: threading.Lock())
    calling: threading.Lock = field(default_factory=lambda: threading.Lock())
    """Held by the thread that runs the app's functions."""
    endpoint: Endpoint | None = None
    watcher: VersionWatcher | None = None
    callbacks: ThreadPoolExecutor | None = None
    recorder: Recorder | None = None


class ModelHost:
    """One app's model.

    Args:
        app: the app, which also provides the store unless `store` is given.
        model: a version, an alias or `latest`; or the result of `app.train()`.
        settings: the `serve:` section.
        follow: load the new version within `serve.refresh` seconds after the alias moves.

    Raises:
        UsageError: `follow` without an alias, or with `serve.refresh: 0`.
    """

    def __init__(
        self,
        app: App,
        model: str | int | TrainedModel,
        settings: Serve | None = None,
        store: Store | None = None,
        follow: bool = False,
    ) -> None:
        self.app = app
        self.settings = app.settings.serve if settings is None else settings
        self._model = model
        self._store = store
        self._follow = follow
        if follow:
            check_follow(model, self.settings)
        self._loaded: ServedModel | None = None
        self._reset_host_process()
        reset = weakref.WeakMethod(self._reset_host_process)
        os.register_at_fork(after_in_child=lambda: (call := reset()) and call())

    def _reset_host_process(self) -> None:
        """Reset threads, locks and counts. Runs first in a forked child."""
        self._state: ProcessState | None = None
        self._locks: dict[str, threading.Lock] = {}
        if self._loaded is not None and not self._loaded.survives_fork:
            self._loaded = None

    @property
    def state(self) -> ProcessState:
        """The host's state in this process."""
        state = self._state
        if state is None:
            # The first request creates the lock: gevent replaces `threading.Lock` after the fork, and a greenlet that
            # waits for an earlier lock would block its whole process. `setdefault` is atomic.
            with self._locks.setdefault("opening", threading.Lock()):
                if self._state is None:
                    self._state = ProcessState(ThreadMetrics(), Intake(self.settings), LoopThread())
                state = self._state
        return state

    def load_model(self) -> None:
        """Load the model without calling it, for a server's parent process, so that its children share the memory.

        Raises:
            UsageError: no such version or alias. ModelError, StoreError: the model cannot be loaded.
        """
        if self._loaded is None:
            # Load in a temporary thread: the threads that OpenMP keeps for each calling thread end with it. If the main
            # thread had such threads, its first parallel loop in a forked child would wait for them forever.
            with ThreadPoolExecutor(1) as pool:
                self._loaded = pool.submit(
                    load_served_model, self.app, self._model, self._store, self.settings
                ).result()

    def close_model(self) -> None:
        """Stop the threads and unload the model. The next request loads it again."""
        state, self._state = self._state, None
        if state is None:
            return
        if state.recorder is not None:
            state.recorder.stop()
        if state.watcher is not None:
            state.loop.run(state.watcher.stop_watching())
        if state.endpoint is not None:
            state.loop.run(state.endpoint.close_endpoint())
        if state.callbacks is not None:
            state.callbacks.shutdown(wait=False)
        state.loop.stop()

    def open_endpoint(self) -> Endpoint:
        """The loaded and warmed-up model. After a failure, the next call tries again.

        Raises:
            MlappError: the model cannot be loaded, or cannot predict its own example.
        """
        state = self.state
        if state.endpoint is None:
            with state.loading:
                if state.endpoint is None:
                    state.endpoint = self._start_host_endpoint(state)
        return state.endpoint

    def _start_host_endpoint(self, state: ProcessState) -> Endpoint:
        self.load_model()
        served_model, self._loaded = self._loaded, None  # the endpoint replaces it when the alias moves
        assert served_model is not None
        state.metrics.models.clear()  # a failed attempt may have left entries
        endpoint = Endpoint(self.app, served_model, self.settings, state.metrics)
        try:
            state.loop.run(endpoint.start_model())
        except Exception:  # of any kind: the next attempt starts a new endpoint
            state.loop.run(endpoint.close_endpoint())
            raise
        state.recorder = make_recorder(
            self.app.name, self.app.settings.monitor, self.place, state.metrics.registry, make_request_id
        )
        if state.recorder is not None:
            endpoint.record_with(state.recorder)
            state.recorder.start()
        if self._follow:
            store = self.app.store() if self._store is None else self._store
            state.watcher = VersionWatcher(endpoint, store, str(self._model))
            state.loop.run(state.watcher.start_watching())
        state.intake.fit_to_container()
        return endpoint

    @cached_property
    def place(self) -> Place | None:
        """The place for monitoring data; None if the model is not in a store, or no place is suitable."""
        if isinstance(self._model, TrainedModel):
            return None
        store = self.app.store() if self._store is None else self._store
        return open_recording_place(self.app.settings.monitor, store, self.app.root, self.app.name)

    def predict(self, inputs: Any) -> list[Any]:
        """Predictions for inputs as plain values or a DataFrame: one JSON-compatible entry per row.

        Raises:
            InputError: the inputs do not fit the schema. UserCodeError: the app's code raised.
            TimeoutError: the model was busy for longer than `serve.timeout`. MlappError: the model cannot be loaded.
        """
        endpoint = self.open_endpoint()
        served_model = endpoint.current
        budget = Budget(self.settings, self.settings.timeout)
        part = served_model.codec.accept_inputs([inputs] if _is_feature_record(inputs) else inputs)
        try:
            if served_model.is_stream:
                items = endpoint.streams.stream_items(served_model, part, budget.timeout, encode_json)
                lines = self.state.loop.run(streams.collect_stream(items, self.settings.max_body, budget))
                return [json.loads(item) for item in lines]
            return self.predict_part(endpoint, served_model, part, budget)
        except HttpError as error:
            raise TimeoutError(error.detail) from error

    def predict_part(self, endpoint: Endpoint, served_model: ServedModel, part: Part, budget: Budget) -> list[Any]:
        """The predictions for one request's features, one entry per row.

        As in the server, only one thread at a time runs a sync predictor; an `async def` predictor runs in a loop.

        Raises:
            HttpError: 504 if the predictor is busy for too long. MlappError: the app's code failed.
        """
        if served_model.is_async:
            predictions: list[Any] = self.state.loop.run(endpoint.predict_part(part, budget.remaining, served_model))
            return predictions
        state, metrics = self.state, endpoint.metrics
        arrival = time.perf_counter()
        if not state.calling.acquire(timeout=budget.remaining):
            metrics.expired.inc()
            raise budget.expired_error()
        try:
            start = time.perf_counter()
            rows, features, raw_predictions = predict_batch(served_model, [part], part.rows)
            seconds = time.perf_counter() - start
            if state.recorder is not None:
                state.recorder.record_batch(served_model, (part,), [rows], part.rows, seconds)
        except Exception:  # of any kind: count it
            metrics.failed.inc()
            raise
        finally:
            state.calling.release()
        state.metrics.note_call(metrics, part.rows, start - arrival, seconds)
        if served_model.predictor.pipeline.callbacks:
            self._run_host_callbacks(endpoint, served_model, features, raw_predictions)
        return rows

    def _run_host_callbacks(
        self, endpoint: Endpoint, served_model: ServedModel, features: Any, predictions: Any
    ) -> None:
        """Run on_predict in a thread, so that the client does not wait for it."""
        state = self.state
        with state.loading:
            if state.callbacks is None:
                state.callbacks = ThreadPoolExecutor(1, thread_name_prefix="on_predict")

        def run_on_predict() -> None:
            if not served_model.predictor.run_on_predict(features, predictions):
                endpoint.metrics.callback_failed.inc()

        state.callbacks.submit(run_on_predict)


def _is_feature_record(inputs: Any) -> bool:
    """Whether inputs are one record rather than columns. A list of one record has a faster decoder."""
    return type(inputs) is dict and not any(isinstance(value, (list, tuple)) for value in inputs.values())
