"""Sends large answers of the fast path: encoded in a thread, counted toward the limit of bodies, and in portions."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

from mlapp.serving.decoding.json_body import encode_answer
from mlapp.serving.web.http import PORTION
from mlapp.serving.web.intake import HeldBody

if TYPE_CHECKING:
    from mlapp.serving.fast_path.request_cycle import FastCycle

log = logging.getLogger("mlapp.serving")


def start_large_answer(cycle: FastCycle, result: list[Any] | bytes) -> None:
    """Answer in a task, which the server awaits or cancels when it stops.

    Args:
        result: predictions with many values, or the body.
    """
    protocol: Any = cycle.protocol
    cycle.timeout = math.inf  # the prediction was in time
    task = protocol.loop.create_task(_send_large_answer(cycle, result))
    protocol.tasks.add(task)
    task.add_done_callback(protocol.tasks.discard)


async def _send_large_answer(cycle: FastCycle, result: list[Any] | bytes) -> None:
    settings, transport = cycle.endpoint.settings, cycle.protocol.transport
    held = HeldBody(cycle.protocol.application.intake)
    try:
        if not isinstance(result, bytes):
            part, tail = cycle.part, cycle.model.tail
            result = await asyncio.to_thread(encode_answer, result, tail, is_unionml=part.is_unionml)
        held.count_answer(len(result))
    except Exception as error:  # a user's predictions can be impossible to encode in many ways
        cycle.finish_request(error)
        return
    try:
        await asyncio.wait_for(_write_in_portions(cycle, result), settings.timeout)
    except asyncio.TimeoutError:
        size, timeout = len(result), settings.timeout
        log.warning("a client did not read its answer of %d bytes within serve.timeout (%g s)", size, timeout)
        transport.abort()
    finally:
        held.release()


async def _write_in_portions(cycle: FastCycle, body: bytes) -> None:
    protocol = cycle.protocol
    if cycle.response_complete or protocol.transport.is_closing():  # the client has left
        return
    protocol.transport.write(cycle.make_head(len(body)))
    for start in range(0, len(body), PORTION):
        protocol.transport.write(body[start : start + PORTION])
        await protocol.flow.drain()
        if cycle.response_complete:  # the client has left
            return
    cycle.end_response(200)
