"""Switches to another version of the model without a restart when the served alias moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mlapp.errors import MlappError, UserCodeError
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel, load_served_model_version
from mlapp.store import Store
from mlapp.store.storage import RequestError

log = logging.getLogger("mlapp.serving")


class VersionWatcher:
    """Resolves the served reference every `serve.refresh` seconds, and loads a new version before it replaces the old.

    Args:
        reference: an alias or `latest`.
        make_context: creates the context in which a model of the app is loaded.
        on_switch: called after each switch.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        reference: str,
        make_context: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_switch: Callable[[], None] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._store = store
        self._reference = reference
        self._within = make_context
        self._switched = on_switch
        self._refused: int | None = None
        self._task: asyncio.Task[None] | None = None

    async def start_watching(self) -> None:
        if self._endpoint.settings.refresh > 0:
            self._task = asyncio.get_running_loop().create_task(self._watch_alias())

    async def stop_watching(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def switch_if_moved(self) -> None:
        """Switch to another version if there is one. Keep the old one if the new one fails to load or to predict."""
        endpoint = self._endpoint
        try:
            version = await asyncio.to_thread(self._resolve_version)
        except Exception as error:  # a store's client can raise anything; the next check tries again
            if _is_exit_error(error):
                return
            log.warning("%s: %s", endpoint.name, error.what if isinstance(error, MlappError) else repr(error))
            return
        if version in (endpoint.current.predictor.version, self._refused):
            return
        try:
            fresh = await asyncio.to_thread(self._load_version, version)
            await endpoint.warm_model(fresh)
        except Exception as error:  # a library that reads model files can raise anything; the old model keeps serving
            if _is_exit_error(error):
                return
            if not isinstance(error, (RequestError, OSError)):  # these can be temporary: the next check tries again
                self._refused = version
            endpoint.metrics.load_failed.inc()
            reason = error.what if isinstance(error, MlappError) else repr(error)
            old = endpoint.current.version
            log.error(
                "%s: version %s keeps serving, because %s cannot be served: %s", endpoint.name, old, version, reason
            )
            return
        self._refused = None
        endpoint.switch_model(fresh)
        if self._switched is not None:
            self._switched()

    def _resolve_version(self) -> int:
        return self._store.resolve(self._endpoint.name, self._reference)

    def _load_version(self, version: int) -> ServedModel:
        model_version = self._store.get(self._endpoint.name, version)
        settings = self._endpoint.settings
        try:
            with self._within():
                return load_served_model_version(
                    self._endpoint.pipeline, model_version, settings.runtime, settings.extra
                )
        except Exception:
            raise
        except BaseException as error:  # a KeyboardInterrupt of the app's loader would end the event loop
            raise UserCodeError(f"Loading version {version}", error) from error

    async def _watch_alias(self) -> None:
        while True:
            await asyncio.sleep(self._endpoint.settings.refresh)
            await self.switch_if_moved()


def _is_exit_error(error: Exception) -> bool:
    """Whether the error says that the interpreter exits: a program that embeds a model may never close it."""
    return isinstance(error, RuntimeError) and str(error).startswith("cannot schedule new futures after")
