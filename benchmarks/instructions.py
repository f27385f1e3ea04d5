"""`python -m benchmarks.instructions`: counts the server's machine instructions per request.

Unlike rates and times, instructions do not depend on the machine's load. The server's protocol, codec, batcher,
metrics, access log and monitoring answer requests of 32 connections, or of one, in this process, without sockets. Most
scenarios have a model that only adds numbers, so that almost all instructions are mlapp's; `digits` has a model of
scikit-learn. valgrind (`apt-get install valgrind`) starts to count when the server is warm.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import ctypes
import gc
import json
import math
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlapp import App
from mlapp.config import Monitor, Serve
from mlapp.monitoring import recorder as recording
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.sampling import BITS
from mlapp.serving import create_asgi
from mlapp.serving.inference.latency import Latency
from mlapp.serving.observability import access_log, metrics
from mlapp.serving.process.server import configure_uvicorn
from mlapp.serving.web.request_id import make_request_id
from mlapp.store import open_store

COLUMNS = 64
ROWS = 40
CONNECTIONS = 32
SCENARIOS = ("rows", "records", "lone", "digits")
MODES = ("off", "drift", "sample", "all")
"""Modes of monitoring: nothing, counts only, or also a log of a sample or of all rows."""
NEVER = 1e9
RATE = 20_000
"""Requests per second by the recorder's simulated clock."""
REQUESTS = RATE
"""Requests that are counted: of one second, because monitoring works once a second. A whole number of rounds of all
connections."""
NO_STRINGS = ":".join(f"glibc.cpu.x86_rep_{name}_threshold=0x7fffffffffff" for name in ("movsb", "stosb"))
"""Prevents glibc from using `rep movsb`, which valgrind counts once per byte, although it is one instruction."""
TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


class Sums:
    """Predicts the sum of each row's numbers."""

    def fit(self, features: Any, target: Any = None) -> Sums:
        return self


def make_app(scenario: str) -> App:
    """An app with a model that costs almost nothing. It takes arrays for rows, and a DataFrame for records."""
    if scenario == "digits":
        return make_digits_app()
    app = App("numbers", target="y")
    names = [f"pixel_{at // 8}_{at % 8}" for at in range(COLUMNS)]

    @app.data_reader
    def read() -> pd.DataFrame:
        cells = np.arange(ROWS * COLUMNS, dtype=float).reshape(ROWS, COLUMNS) % 17
        return pd.DataFrame(cells, columns=names).assign(y=np.arange(ROWS) % 2)

    app.model(Sums)
    if scenario == "records":

        @app.predictor
        def predict_table(model: Sums, features: pd.DataFrame) -> list[float]:
            return features.to_numpy().sum(axis=1).tolist()  # type: ignore[no-any-return]

    else:

        @app.predictor
        def predict_array(model: Sums, features: np.ndarray) -> list[float]:
            return features.sum(axis=1).tolist()  # type: ignore[no-any-return]

    return app


def make_digits_app() -> App:
    """An app with a logistic regression of scikit-learn and a predictor that takes an array."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    app = App("digits", target="target")
    app.data_reader(lambda: load_digits(as_frame=True).frame)
    app.model(lambda: LogisticRegression(max_iter=1000))

    @app.predictor
    def predict(model: LogisticRegression, features: np.ndarray) -> list[int]:
        return model.predict(features).tolist()  # type: ignore[no-any-return]

    return app


class Transport:
    """A connection without a socket, which keeps the last answer."""

    def __init__(self) -> None:
        self.answers = 0
        self.last = b""

    def write(self, data: bytes) -> None:
        self.answers += 1
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name)

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


class Fast(Latency):
    """Treats every call as fast, because all calls are slow under valgrind."""

    def add_call(self, seconds: float, rows: int) -> None:
        super().add_call(1e-4, rows)


class Client:
    """The server in this process, and requests to it."""

    def __init__(self, scenario: str, mode: str = "drift") -> None:
        access_log.DELAY = metrics.DELAY = NEVER
        self.now = time.time()
        recording.time = types.SimpleNamespace(time=lambda: self.now)  # type: ignore[assignment,attr-defined]
        self._null = os.open(os.devnull, os.O_WRONLY)
        app = make_app(scenario)
        application = create_asgi(app, model=app.train(), settings=Serve())
        self.application = application
        application.access_log = access_log.AccessLog(self._null)
        endpoint = application.endpoints[0]
        endpoint.batcher._latency = Fast()
        self.recorder = None if mode == "off" else self._make_recorder(app.name, mode)
        endpoint.recorder = endpoint.batcher.recorder = None  # the one of create_asgi, which has a thread
        if self.recorder is not None:
            endpoint.record_with(self.recorder)
        self._scenario = scenario

    def _make_recorder(self, app: str, mode: str) -> Recorder:
        metrics = MonitorMetrics(self.application.metrics.registry, app)
        if mode == "drift":
            return Recorder(app, Monitor(), None, metrics, make_request_id)
        folder = tempfile.mkdtemp(prefix="mlapp-log-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        place = Place(open_store(folder, Path(folder)).storage, app)
        return Recorder(app, Monitor(log="sample" if mode == "sample" else "all"), place, metrics, make_request_id)

    def _simulate_load(self) -> None:
        """Set the recorder to its state after some seconds at `RATE`, without the rows that a quiet time permits."""
        assert self.recorder is not None
        limit, log = self.recorder._choice.limit, self.recorder._log
        limit._tokens, limit._since, limit._cells = 0.0, self.now - 1.0, RATE * COLUMNS
        for live in self.recorder._windows._open.values():
            live.published = self.now  # the series are updated every 15 seconds
        if log is not None and log._sampler is not None:
            sampler = log._sampler
            sampler._tokens, sampler._is_quiet = sampler.rate, False
            sampler._set_bits(BITS - math.ceil(math.log2(RATE / sampler.rate)))

    async def connect(self) -> None:
        """Warm the model, and open the connections."""
        from uvicorn.server import ServerState

        application, scenario, loop = self.application, self._scenario, asyncio.get_running_loop()
        await application.start_models()
        config = configure_uvicorn(application, Serve())
        config.load()
        state = ServerState()
        self.transports: list[Transport] = []
        self.protocols: list[Any] = []
        for _ in range(1 if scenario == "lone" else CONNECTIONS):
            protocol = config.http_protocol_class(config=config, server_state=state, app_state={}, _loop=loop)  # type: ignore[call-arg]
            transport = Transport()
            protocol.connection_made(transport)  # type: ignore[arg-type]
            self.protocols.append(protocol)
            self.transports.append(transport)
        self.requests = [self._request(scenario, at) for at in range(len(self.protocols))]

    @staticmethod
    def _request(scenario: str, number: int) -> bytes:
        row = [float((at * 7 + number) % 17) for at in range(COLUMNS)]
        names = [f"pixel_{at // 8}_{at % 8}" for at in range(COLUMNS)]
        body = json.dumps({"inputs": [dict(zip(names, row, strict=True)) if scenario == "records" else row]}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Content-Type: application/json\r\n\r\n".encode() + body

    async def send_requests(self, requests: int) -> None:
        """Send requests in rounds, one per connection, and wait for the answers of each round.

        Periodic work of the server (metrics, access log, monitoring) is done once at the end.
        """
        before = sum(transport.answers for transport in self.transports)
        for _ in range(requests // len(self.protocols)):
            self.now += len(self.protocols) / RATE  # valgrind is some fifty times slower
            for protocol, request in zip(self.protocols, self.requests, strict=True):
                protocol.data_received(request)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.application.metrics.update_metrics()
        if self.application.access_log is not None:
            self.application.access_log.flush_lines()
        if self.recorder is not None:
            self.recorder.record_and_write()
            self.recorder.write_waiting()
            self._simulate_load()
        answered = sum(transport.answers for transport in self.transports) - before
        assert answered == requests, f"{answered} of {requests} requests were answered"
        assert all(transport.last.startswith(b"HTTP/1.1 200") for transport in self.transports), self.transports[0].last


def make_valgrind_switch() -> Callable[[int], int]:
    """A function that sends a client request to valgrind. Outside of valgrind it does nothing.

    The instructions are those of `valgrind.h` for x86-64: four rotations without an effect in total, and an exchange of
    a register with itself.
    """
    code = bytes.fromhex("4889f831d248c1c70348c1c70d48c1c73d48c1c7334887db4889d0c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
    arguments = (ctypes.c_uint64 * 6)()

    def switch(request: int, _page: Any = page) -> int:
        arguments[0] = request
        return int(call(ctypes.addressof(arguments)))

    return switch


_CALLGRIND = (ord("C") << 24) | (ord("T") << 16)
START_COUNTING, STOP_COUNTING = _CALLGRIND + 4, _CALLGRIND + 5


async def serve_counted_requests(scenario: str, mode: str, requests: int) -> None:
    """Answer requests. This is the part that runs in valgrind."""
    client, switch = Client(scenario, mode), make_valgrind_switch()
    await client.connect()
    await client.send_requests(4 * CONNECTIONS)
    gc.collect()
    gc.freeze()
    gc.disable()
    switch(START_COUNTING)
    await client.send_requests(requests)
    switch(STOP_COUNTING)


def count_instructions(scenario: str, mode: str = "drift", requests: int = REQUESTS) -> int:
    """The number of instructions per request.

    Raises:
        subprocess.CalledProcessError: the server failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "counts"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
        command += [sys.executable, "-m", "benchmarks.instructions", "--drive", scenario, "--modes", mode]
        command += ["--requests", str(requests)]
        variables = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        variables["GLIBC_TUNABLES"] = NO_STRINGS
        subprocess.run(
            command, check=True, env=variables, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True
        )
        totals = TOTAL.findall(output.read_text())
        copy_prefix = os.environ.get("MLAPP_BENCH_CALLGRIND")
        if copy_prefix:
            shutil.copy(output, f"{copy_prefix}.{scenario}.{mode}")
    return int(totals[-1]) // requests


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS[:3]))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["drift"], help="of monitoring (default drift)")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--drive", choices=SCENARIOS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        asyncio.run(serve_counted_requests(arguments.drive, arguments.modes[0], arguments.requests))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is missing: `apt-get install valgrind`.", file=sys.stderr)
        return 1
    for scenario in arguments.scenarios:
        for mode in arguments.modes:
            count = count_instructions(scenario, mode, arguments.requests)
            print(f"{scenario}, monitoring {mode}: {count:,} instructions a request", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
