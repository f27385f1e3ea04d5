"""The request and the response of mlapp's own routes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import Any, TypeVar

from mlapp.serving.web.headers import join_headers
from mlapp.serving.web.intake import HeldBody, Intake
from mlapp.serving.web.problems import CLOSE, HttpError, too_large_body_error

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
T = TypeVar("T")

JSON = b"application/json"
PORTION = 256 * 1024
"""Bytes of an answer that are written at once."""
Headers = Sequence[tuple[bytes, bytes]]


class Request:
    """A request. The body is read on demand, up to the limit."""

    def __init__(self, scope: Scope, receive: Receive, intake: Intake) -> None:
        self.scope = scope
        self.receive = receive
        self.held = HeldBody(intake)
        self.method: str = scope["method"]
        self.identity = b""
        """The request's id, which the answer repeats."""
        self.tail = ""
        """The path after the route's prefix, for routes that end in `/*`."""

    @cached_property
    def headers(self) -> dict[bytes, bytes]:
        """Headers by name; see `join_headers`."""
        return join_headers(self.scope["headers"])

    @property
    def media(self) -> bytes:
        """The media type of the body, in lower case and without parameters."""
        return parse_media_type(self.headers.get(b"content-type", b""))

    async def read_body(self, limit: int, timeout: float) -> bytes:
        """The body as received, possibly compressed. It counts toward the server's intake until `held` is released.

        Args:
            limit: maximum bytes.
            timeout: seconds until it must have arrived.

        Raises:
            HttpError: 413, too large; 408, too slow; 503, the server holds too many bodies.
            ClientDisconnected: the connection was closed before its end.
        """
        limit = min(limit, self.held.limit)
        length = self.headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise too_large_body_error(limit)
        try:
            return await asyncio.wait_for(self._read_whole_request(limit), timeout) if length != b"0" else b""
        except asyncio.TimeoutError:
            raise HttpError(408, f"The body did not arrive within {timeout:g} seconds.", headers=CLOSE) from None

    async def _read_whole_request(self, limit: int) -> bytes:
        parts: list[bytes] = []
        try:
            await self._read_request_parts(parts, limit)
            return b"".join(parts) if len(parts) != 1 else parts[0]
        finally:
            parts.clear()  # an error can keep this frame until the garbage collector runs

    async def _read_request_parts(self, parts: list[bytes], limit: int) -> None:
        size, is_last = 0, False
        while not is_last:
            message = await self.receive()
            is_last = not message.get("more_body")
            parts.append(_read_http_message_body(message))
            del message
            size += len(parts[-1])
            if size > limit:
                raise too_large_body_error(limit)
            self.held.add(len(parts[-1]))

    async def wait_for_disconnect(self) -> None:
        """Wait until the client closes the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class ClientDisconnected(Exception):
    """The client closed the connection before the answer."""


async def run_until_disconnect(work: Awaitable[T], wait_for_disconnect: Callable[[], Awaitable[None]]) -> T:
    """The result of `work`; cancels it if the client leaves first.

    Args:
        wait_for_disconnect: `Request.wait_for_disconnect`.

    Raises:
        ClientDisconnected: the client left first.
    """
    task, disconnect = asyncio.ensure_future(work), asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        disconnect.cancel()
        if task.cancel():
            await asyncio.wait((task,))  # until its cleanup is complete
        del task  # its error refers to this frame, and the frame to the request's features


class Response:
    """A status, headers, and a body. `stream` follows the body."""

    def __init__(
        self,
        body: bytes = b"",
        media: bytes = JSON,
        status: int = 200,
        headers: Headers = (),
        stream: AsyncGenerator[bytes, None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.stream = stream
        self.headers = [(b"content-type", media), *headers]
        if stream is None:
            self.headers.append((b"content-length", b"%d" % len(body)))

    async def send_response(self, send: Send, extra: Headers = ()) -> None:
        """Send the response with additional headers."""
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, *extra]})
        if self.stream is None:
            # In portions: to write a large answer at once delays other requests, and buffers it a second time.
            start = 0
            while len(self.body) - start > PORTION:
                portion = self.body[start : start + PORTION]
                await send({"type": "http.response.body", "body": portion, "more_body": True})
                start += PORTION
            await send({"type": "http.response.body", "body": self.body[start:]})
            return
        async with aclosing(self.stream) as parts:
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


def parse_media_type(value: bytes) -> bytes:
    """`Application/JSON; charset=utf-8` as `application/json`."""
    return value.partition(b";")[0].strip().lower()


def decompress_body(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Decompress a body; stops at `limit` bytes, to bound a decompression bomb.

    Raises:
        HttpError: 413, too large; 415, an unknown encoding; 400, not valid in its encoding.
    """
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise HttpError(415, f"content-encoding {encoding.decode('latin-1')!r} is not known. Use gzip or deflate.")
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise HttpError(400, f"The body is not {encoding.decode()}: {error}.") from None
    if len(plain) > limit:
        raise too_large_body_error(limit)
    if not inflate.eof:
        raise HttpError(400, f"The body's {encoding.decode()} ends too early.")
    if inflate.unused_data:  # another member, whose rows would be lost
        raise HttpError(400, f"The body's {encoding.decode()} has data after its end: send it as one member.")
    return plain


def _read_http_message_body(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    body: bytes = message.get("body", b"")
    return body
