"""The model of an app in this process: loaded by the first request, and safe to call from several threads.

A process that forks (gunicorn, uWSGI) may hold a host. A child has a loop, locks and metrics of its own: threads do not
survive a fork. A model that the parent loaded is shared with the children where its framework allows that.
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
from mlapp.monitoring.recording import find_place, make_recorder
from mlapp.schema.rows import Part
from mlapp.serving.inference import streams
from mlapp.serving.inference.batch_predict import predict_batch
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.inference.version_watcher import VersionWatcher
from mlapp.serving.web.budget import Budget, Intake
from mlapp.serving.web.problems import HttpError
from mlapp.serving.web.request_id import new_request_id
from mlapp.store import Store

log = logging.getLogger("mlapp.serving")


def check_follow(model: str | int | TrainedModel, settings: Serve) -> None:
    """Check that a model can be followed.

    Raises:
        UsageError: it is not an alias, or `serve.refresh` is 0.
    """
    if not isinstance(model, str) or model.isdigit():
        raise UsageError(f"follow=True, and model={model!r} never moves.", "Give an alias, as model='production'.")
    if not settings.refresh:
        raise UsageError("follow=True, and serve.refresh is 0: never look.", "Set serve.refresh to some seconds.")


@dataclass
class ProcessState:
    """State of a host in one process. Its locks use the current `threading.Lock`, which gevent replaces late."""

    metrics: ThreadMetrics
    intake: Intake
    loop: LoopThread
    intake_lock: threading.Lock = field(default_factory=lambda: threading.Lock())
    loading: threading.Lock = field(default_factory=lambda: threading.Lock())
    calling: threading.Lock = field(default_factory=lambda: threading.Lock())
    """Held by the one thread that is in the app's functions."""
    endpoint: Endpoint | None = None
    watcher: VersionWatcher | None = None
    callbacks: ThreadPoolExecutor | None = None
    recorder: Recorder | None = None


class ModelHost:
    """One app's model.

    Args:
        app: with the store that the version is in, unless `store` is given.
        model: a version, an alias or `latest`; or what `app.train()` returned.
        settings: the `serve:` section.
        follow: load another version when the alias moves, within `serve.refresh` seconds.

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
        self._reset_process()
        reset = weakref.WeakMethod(self._reset_process)
        os.register_at_fork(after_in_child=lambda: (call := reset()) and call())

    def _reset_process(self) -> None:
        """Begin without threads, locks and counts. The first thing that a forked child does."""
        self._state: ProcessState | None = None
        self._locks: dict[str, threading.Lock] = {}
        if self._loaded is not None and not self._loaded.survives_fork:
            self._loaded = None

    @property
    def state(self) -> ProcessState:
        """The host's state in this process."""
        state = self._state
        if state is None:
            # The first request makes the lock: gevent replaces `threading.Lock` after the fork, and a greenlet that
            # waits for a lock from before stops its whole process. `setdefault` is atomic.
            with self._locks.setdefault("opening", threading.Lock()):
                if self._state is None:
                    self._state = ProcessState(ThreadMetrics(), Intake(self.settings), LoopThread())
                state = self._state
        return state

    def load_model(self) -> None:
        """Load the model, but do not call it: for a server's parent process, whose children then share its memory.

        Raises:
            UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
        """
        if self._loaded is None:
            self._loaded = load_served_model(self.app, self._model, self._store, self.settings)

    def close_model(self) -> None:
        """Stop the threads, and forget the model. The next request loads it again."""
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
        """The model, loaded and warm. A failed attempt is made again by the next call.

        Raises:
            MlappError: it cannot be loaded, or cannot predict its own example.
        """
        state = self.state
        if state.endpoint is None:
            with state.loading:
                if state.endpoint is None:
                    state.endpoint = self._start_endpoint(state)
        return state.endpoint

    def _start_endpoint(self, state: ProcessState) -> Endpoint:
        self.load_model()
        loaded, self._loaded = self._loaded, None  # where the alias moves, the endpoint has another one
        assert loaded is not None
        state.metrics.models.clear()  # of an attempt that failed
        endpoint = Endpoint(self.app, loaded, self.settings, state.metrics)
        try:
            state.loop.run(endpoint.start_model())
        except Exception:
            state.loop.run(endpoint.close_endpoint())
            raise
        state.recorder = make_recorder(
            self.app.name, self.app.settings.monitor, self.place, state.metrics.registry, new_request_id
        )
        if state.recorder is not None:
            endpoint.record_with(state.recorder)
            state.recorder.start()
        if self._follow:
            store = self.app.store() if self._store is None else self._store
            state.watcher = VersionWatcher(endpoint, store, str(self._model))
            state.loop.run(state.watcher.start_watching())
        return endpoint

    @cached_property
    def place(self) -> Place | None:
        """Where monitoring data go; None for a model that is not stored, or where they cannot be kept."""
        if isinstance(self._model, TrainedModel):
            return None
        store = self.app.store() if self._store is None else self._store
        return find_place(self.app.settings.monitor, store, self.app.root, self.app.name)

    def predict(self, inputs: Any) -> list[Any]:
        """Predictions for inputs as plain values or a DataFrame: one entry a row, as values that JSON holds.

        Raises:
            InputError: they do not fit the schema. UserCodeError: the app's code raised.
            TimeoutError: the model was not free within `serve.timeout`. MlappError: the model cannot be loaded.
        """
        endpoint = self.open_endpoint()
        loaded = endpoint.current
        budget = Budget(self.settings, self.settings.timeout)
        part = loaded.codec.accept_inputs([inputs] if _is_record(inputs) else inputs)
        try:
            if loaded.is_stream:
                items = endpoint.streams.stream_items(loaded, part, budget.timeout)
                found = self.state.loop.run(streams.collect_stream(items, self.settings.max_body, budget))
                return [json.loads(item) for item in found]
            return self.predict_part(endpoint, loaded, part, budget)
        except HttpError as error:
            raise TimeoutError(error.detail) from error

    def predict_part(self, endpoint: Endpoint, loaded: ServedModel, part: Part, budget: Budget) -> list[Any]:
        """The predictions for one request's features, one entry a row.

        As in the server, no two threads are in a sync predictor at once; an `async def` predictor runs in a loop.

        Raises:
            HttpError: 504, the time is up before the predictor is free. MlappError: the app's code failed.
        """
        if loaded.is_async:
            predictions: list[Any] = self.state.loop.run(endpoint.predict_part(part, budget.remaining, loaded))
            return predictions
        state, metrics = self.state, endpoint.metrics
        arrived = time.perf_counter()
        if not state.calling.acquire(timeout=budget.remaining):
            metrics.expired.inc()
            raise budget.expired_error()
        try:
            started = time.perf_counter()
            rows, features, found = predict_batch(loaded, [part], part.rows)
            seconds = time.perf_counter() - started
            if state.recorder is not None:
                state.recorder.add(loaded, (part,), [rows], part.rows, seconds)
        except Exception:
            metrics.failed.inc()
            raise
        finally:
            state.calling.release()
        metrics.count_batch(part.rows, started - arrived, seconds)
        if loaded.predictor.pipeline.callbacks:
            self._run_callbacks(endpoint, loaded, features, found)
        return rows

    def _run_callbacks(self, endpoint: Endpoint, loaded: ServedModel, features: Any, predictions: Any) -> None:
        """Let on_predict run in a thread: the client waits for nothing else."""
        state = self.state
        with state.loading:
            if state.callbacks is None:
                state.callbacks = ThreadPoolExecutor(1, thread_name_prefix="on_predict")

        def run() -> None:
            if not loaded.predictor.run_on_predict(features, predictions):
                endpoint.metrics.callback_failed.inc()

        state.callbacks.submit(run)


def _is_record(inputs: Any) -> bool:
    """Whether inputs are one record, and not columns: a list of one is decoded on the short way."""
    return type(inputs) is dict and not any(isinstance(value, (list, tuple)) for value in inputs.values())
