"""Loads a server with wrk, and checks its answers."""

from __future__ import annotations

import http.client
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies = {%s}
local requests = {}
local at = 0
init = function()
  for number, body in ipairs(bodies) do requests[number] = wrk.format(nil, nil, nil, body) end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
done = function(summary, latency, requests)
  io.write(string.format('\\nRESULT {"requests": %%d, "microseconds": %%d, "p50": %%f, "p99": %%f, ' ..
    '"status": %%d, "socket": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """The result of one run of wrk.

    Attributes:
        rate: successful responses (2xx) per second.
        p50, p99: latency of all responses in microseconds.
        errors: other responses, and connections that failed or timed out.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    errors: int

    as_dict = asdict


def run_wrk(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Load:
    """POST the bodies repeatedly in turn, over this number of connections.

    Raises:
        subprocess.CalledProcessError: wrk failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % ", ".join(f"[==[{body.decode()}]==]" for body in bodies))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    summary = json.loads(output.rpartition("RESULT ")[2])
    successes = summary["requests"] - summary["status"]
    return Load(
        requests=summary["requests"],
        rate=successes / (summary["microseconds"] / 1e6),
        p50=summary["p50"],
        p99=summary["p99"],
        errors=summary["status"] + summary["socket"],
    )


def send_request(port: int, path: str, body: bytes, timeout: float = 30.0) -> Any:
    """The parsed response to one request; for server-sent events, the list of their data.

    Raises:
        OSError, http.client.HTTPException: the connection failed, or the status is not 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"HTTP {response.status}: {content[:300].decode(errors='replace')}")
    if content.startswith((b"data:", b"event:")):
        return list(_iterate_sse_events(content))
    return json.loads(content)


def _iterate_sse_events(content: bytes) -> Iterator[Any]:
    """The JSON data of the server-sent events in a body, except for events that end the stream."""
    for event in content.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b":", 1) for line in event.splitlines())
        if b"data" in fields and fields.get(b"event", b"message").strip() == b"message":
            yield json.loads(fields[b"data"])


def check_answers(questions: Sequence[Callable[[], Any]], expected: Sequence[Any], concurrency: int = 16) -> None:
    """Send requests concurrently, and check that each gets its own answer, batched or not.

    Args:
        questions: each sends a request and returns its answer.

    Raises:
        AssertionError: names the first wrong answer.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        answers = list(pool.map(lambda question: question(), questions))
    for number, (answer, expected_answer) in enumerate(zip(answers, expected, strict=True)):
        if answer != expected_answer:
            raise AssertionError(f"sample {number}: answered {answer!r}, not {expected_answer!r}")
