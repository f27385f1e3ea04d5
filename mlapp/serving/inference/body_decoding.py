"""Decodes the bodies of one app's requests where they delay other requests least: event loop, thread or process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, TypeVar

from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.decoding.processes import load_process_features, read_in_process
from mlapp.serving.decoding.threads import decode_in_thread
from mlapp.serving.inference.latency import Latency
from mlapp.serving.inference.served_model import ServedModel
from mlapp.serving.web.budget import Budget

T = TypeVar("T")
LOADERS = 16
"""Maximum concurrent calls of a slow feature_loader."""


class BodyDecoding:
    """Decodes bodies to features, and measures the app's feature_loader to decide where it runs.

    Args:
        has_loader: whether the app has a feature_loader.
    """

    def __init__(self, *, has_loader: bool) -> None:
        self._has_loader = has_loader
        self._loading = Latency()

    async def load_features(
        self,
        codec: Codec,
        decoded: T,
        size: int,
        budget: Budget,
        wait_for_disconnect: Callable[[], Awaitable[Any]] | None = None,
    ) -> T:
        """Replace a decoder's raw inputs by features, with the app's feature_loader.

        Args:
            decoded: a `Part`, or a tuple that ends in one.
            size, wait_for_disconnect: as for `run_decoder`.

        Raises:
            HttpError, ClientDisconnected: as for `run_decoder`. InputError, UserCodeError: as for `Codec.load_part`.
        """
        if codec.reader is codec:
            return decoded
        load = partial(load_process_features, codec, decoded)
        if size < LARGE and self._is_loading_fast:
            return load()  # type: ignore[no-any-return]
        started = time.perf_counter()
        # A feature_loader can wait, for example for a download, so it does not block a decoder.
        result: T = await decode_in_thread(
            load, budget, wait_for_disconnect, self._loaders if codec.has_loader else None
        )
        self._loading.add_call(time.perf_counter() - started, 1)
        return result

    async def decode_features(
        self,
        model: ServedModel,
        decode: Callable[..., Any],
        body: bytes,
        budget: Budget,
        wait_for_disconnect: Callable[[], Awaitable[Any]] | None = None,
        arguments: tuple[Any, ...] = (),
        max_loop_bytes: int = LARGE,
    ) -> Any:
        """Decode a body to features: in the event loop, a thread or a process, depending on its size.

        Args:
            decode: a module-level function, called with the codec, the body, the budget and the arguments. It returns a
                `Part`, or a tuple that ends in one.
            wait_for_disconnect, max_loop_bytes: as for `run_decoder`.

        Raises:
            HttpError, ClientDisconnected: as for `run_decoder`; and what `decode` raises.
        """
        decode_raw = partial(read_in_process, model.codec, decode, body, budget, *arguments)
        decoded = await run_decoder(decode_raw, len(body), budget, wait_for_disconnect, max_loop_bytes)
        return await self.load_features(model.codec, decoded, len(body), budget, wait_for_disconnect)

    @cached_property
    def _loaders(self) -> ThreadPoolExecutor:
        """The threads of the feature_loader."""
        return ThreadPoolExecutor(LOADERS, thread_name_prefix="feature_loader")

    @property
    def _is_loading_fast(self) -> bool:
        """Whether small inputs become features quickly. A user's feature_loader can download data."""
        return self._loading.is_fast or not self._has_loader

    def close_threads(self) -> None:
        """End the threads of the feature_loader."""
        if "_loaders" in self.__dict__:
            self._loaders.shutdown(wait=False, cancel_futures=True)


async def run_decoder(
    decode: Callable[[], T],
    size: int,
    budget: Budget,
    wait_for_disconnect: Callable[[], Awaitable[Any]] | None = None,
    max_loop_bytes: int = LARGE,
) -> T:
    """Run `decode` for a body: in the event loop if it is quick, otherwise in a thread.

    Args:
        size: bytes that it reads.
        wait_for_disconnect: returns an awaitable that ends when the client leaves.
        max_loop_bytes: bytes above which it is not quick.

    Raises:
        HttpError: 504, timeout. ClientDisconnected: the client has left.
    """
    return decode() if size < max_loop_bytes else await decode_in_thread(decode, budget, wait_for_disconnect)
