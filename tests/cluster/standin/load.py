"""Constant load from inside the cluster: so many requests a second until SIGTERM, half of them on new connections.

Prints one line of JSON: the seconds of load, how many requests were answered with 200, and each other outcome with its
count.
"""

import asyncio
import collections
import contextlib
import json
import signal
import sys
import time

host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
BODY = json.dumps({"inputs": [{"x": 1}]}).encode()
KEPT = 16
outcomes = collections.Counter()
versions = collections.Counter()
slowest = 0.0
end = float("inf")


def request(keep):
    connection = "keep-alive" if keep else "close"
    head = f"POST /predict HTTP/1.1\r\nHost: load\r\nContent-Length: {len(BODY)}\r\nConnection: {connection}\r\n\r\n"
    return head.encode() + BODY


async def ask(reader, writer, keep):
    writer.write(request(keep))
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers["content-length"]))
    outcomes[lines[0].split()[1]] += 1
    with contextlib.suppress(ValueError):
        versions[str(json.loads(body).get("version"))] += 1
    return keep and headers.get("connection") != "close"


async def once(due):
    global slowest
    writer = None
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 30)
        await asyncio.wait_for(ask(reader, writer, False), 30)
    except Exception as error:
        outcomes[f"{type(error).__name__}: {error}"] += 1
    finally:
        slowest = max(slowest, time.monotonic() - due)
        if writer:
            writer.close()


async def keep_connection(number):
    """A client with a persistent connection, which it reopens if the server closes it."""
    global slowest
    pause = KEPT / (rate / 2)
    due = time.monotonic() + pause * number / KEPT
    reader = writer = None
    while time.monotonic() < end:
        await asyncio.sleep(max(0, due - time.monotonic()))
        try:
            if writer is None:
                reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 30)
            if not await asyncio.wait_for(ask(reader, writer, True), 30):
                writer.close()
                writer = None
        except Exception as error:
            outcomes[f"kept {type(error).__name__}: {error}"] += 1
            if writer:
                writer.close()
            writer = None
        slowest = max(slowest, time.monotonic() - due)
        due += pause


async def can_reach():
    """Whether a pod can reach the Service at all: where it cannot, the load would only say so after minutes."""
    for _ in range(5):
        try:
            await asyncio.wait_for(asyncio.open_connection(host, port), 5)
            return
        except (OSError, asyncio.TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
    sys.exit(f"pods of this cluster do not reach a Service: {host}:{port}: {problem}")


def stop():
    global end
    end = min(end, time.monotonic())


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await can_reach()
    due = start = time.monotonic()
    clients = [asyncio.create_task(keep_connection(number)) for number in range(KEPT)]
    fresh = set()
    while time.monotonic() < end:
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(once(due))
        fresh.add(task)
        task.add_done_callback(fresh.discard)
        due += 2 / rate
    await asyncio.gather(*clients, *fresh)
    good = outcomes.pop("200", 0)
    result = {"seconds": round(end - start, 3), "good": good, "bad": dict(outcomes), "versions": dict(versions)}
    print(json.dumps({**result, "slowest": round(slowest, 3)}), flush=True)


asyncio.run(main())
