"""Runs the contest of one scenario: starts every server, checks its answers, and loads the servers in turns."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from . import environments, load, processes
from .peers import EMPTY, LIMIT, MLAPP, Peer
from .scenarios import Samples, Scenario

START_SECONDS = 180.0
WARM_UP_SECONDS = 2.0


@dataclass
class Measurements:
    """The measurements of one server in one scenario.

    Attributes:
        failure: why there are no measurements; empty if there are.
        extra_bytes: the idle server's memory minus that of a process that has loaded the same libraries and the model.
        loads: number of connections → one load per round.
        cpu: number of connections → CPU microseconds per request of all processes of the server, one per round.
    """

    failure: str = ""
    extra_bytes: int | None = None
    loads: dict[int, list[load.Load]] = field(default_factory=dict)
    cpu: dict[int, list[float]] = field(default_factory=dict)

    as_dict = asdict


@dataclass
class Server:
    """A running peer and its measurements."""

    peer: Peer
    scenario: Scenario
    samples: Samples
    port: int
    measured: Measurements = field(default_factory=Measurements)
    process: subprocess.Popen[Any] | None = None

    def body(self, number: int) -> bytes:
        return json.dumps(self.peer.request(self.scenario, self.samples, number)).encode()

    @cached_property
    def bodies(self) -> list[bytes]:
        """The bodies that wrk sends."""
        return [self.body(number) for number in range(self.scenario.bodies)]

    def answer(self, number: int) -> Any:
        """The first prediction, if there is one for each row; otherwise a text with their number."""
        reply = load.send_request(self.port, self.peer.path, self.body(number))
        if self.peer.answer is None:
            return None
        if self.scenario.streams:
            return max(range(len(reply)), key=reply.__getitem__)
        predictions = self.peer.answer(reply)
        return predictions[0] if len(predictions) == self.scenario.rows else f"{len(predictions)} predictions"

    def start(self, models: Path) -> None:
        """Start the server in a new folder, and wait for its first answer.

        Raises:
            RuntimeError: the server did not start, or gives a wrong answer.
        """
        peer, model = self.peer, models / f"{self.scenario.kind}.joblib"
        programs = environments.install_environment(peer.environment or peer.folder)
        folder = environments.CACHE / "run" / self.scenario.name / peer.folder
        source = environments.PEERS / peer.folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source / self.scenario.kind if (source / self.scenario.kind).is_dir() else source, folder)
        filled = {"port": str(self.port), "model": str(model), "scenario": self.scenario.kind}
        filled["workers"] = str(self.scenario.workers)
        variables = {
            **environments.make_server_variables(programs),
            **{"MODEL": filled["model"], "SCENARIO": self.scenario.kind, "WORKERS": filled["workers"]},
            **{name: value.format(**filled) for name, value in peer.variables.items()},
        }
        with (folder / "output.log").open("wb") as log:
            run = partial(subprocess.Popen, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT)
            if peer.prepare and run([part.format(**filled) for part in peer.prepare]).wait() != 0:
                raise RuntimeError(f"its preparation failed: see {log.name}")
            process = self.process = run([part.format(**filled) for part in peer.serve], start_new_session=True)
        self._wait(folder / "output.log")
        if peer.answer:
            baseline = _measure_model_process(programs, variables, model)
            self.measured.extra_bytes = processes.read_resident_bytes(process.pid) - baseline
            questions = [partial(self.answer, number) for number in range(len(self.samples.rows))]
            try:
                load.check_answers(questions, self.samples.expected)
            except (AssertionError, OSError, http.client.HTTPException, LookupError) as error:
                raise RuntimeError(f"wrong answer: {error}") from error

    def _wait(self, log: Path) -> None:
        assert self.process
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.answer(0)
                return
            except (OSError, http.client.HTTPException, ValueError) as error:
                if self.process.poll() is not None:
                    raise RuntimeError(f"it ended with code {self.process.returncode}: see {log}") from error
                if time.monotonic() > deadline:
                    raise RuntimeError(f"no answer in {START_SECONDS:.0f} s: {error!r}: see {log}") from error
            time.sleep(0.2)

    def close(self) -> None:
        if self.process:
            processes.stop_process_tree(self.process.pid)
            self.process.wait()

    def load(self, connections: int, seconds: float) -> tuple[load.Load, float]:
        """Run wrk once; returns its result and the CPU microseconds per request."""
        assert self.process
        before = processes.read_cpu_seconds(self.process.pid)
        url = f"http://127.0.0.1:{self.port}{self.peer.path}"
        result = load.run_wrk(url, self.bodies, connections, seconds)
        cpu = processes.read_cpu_seconds(self.process.pid) - before
        return result, cpu * 1e6 / max(result.requests, 1)

    def measure(self, connections: int, seconds: float) -> None:
        """Measure one round."""
        result, cpu = self.load(connections, seconds)
        self.measured.loads.setdefault(connections, []).append(result)
        self.measured.cpu.setdefault(connections, []).append(cpu)


def _measure_model_process(programs: Path, variables: dict[str, str], model: Path) -> int:
    command = [programs / "python", environments.PEERS / "model" / "resident.py", model]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        size = processes.read_resident_bytes(process.pid)
        process.stdin.close()
    return size


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _measure_lone_request(
    models: Path, scenario: Scenario, servers: Sequence[Server], seconds: float
) -> list[dict[str, float]]:
    """Rounds with the latencies of the empty app, of mlapp, and of the model's own call, for a single client."""
    programs = environments.install_environment("mlapp")
    script, model = environments.PEERS / "model" / "alone.py", models / f"{scenario.kind}.joblib"
    named = [f"{server.peer.name}={server.port}" for server in servers if server.peer.name in (EMPTY, MLAPP)]
    command = [str(part) for part in (programs / "python", script, model, models / "samples.json", seconds, *named)]
    variables = environments.make_server_variables(programs)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=variables).stdout
    rounds: list[dict[str, float]] = json.loads(output)
    return rounds


@dataclass
class Contest:
    """The results of one scenario.

    Attributes:
        alone: many short rounds with single requests. Each has the median microseconds of the model's own call (`own`),
            the empty app and mlapp.
        servers: name of the peer → measurements.
    """

    scenario: Scenario
    alone: list[dict[str, float]]
    servers: dict[str, Measurements]

    as_dict = asdict


def run_contest(
    scenario: Scenario,
    peers: Sequence[Peer],
    models: Path,
    samples: Samples,
    *,
    rounds: int,
    seconds: float,
) -> Contest:
    """Start all peers, and load them in turns, so that changes in the machine's speed affect all of them.

    Raises:
        RuntimeError: mlapp did not start, or gives a wrong answer, so that there is nothing to compare.
    """
    chosen = [peer for peer in peers if not scenario.folders or peer.folder in scenario.folders]
    servers = [Server(peer, scenario, samples, _free_port()) for peer in chosen]
    alone: list[dict[str, float]] = []
    with ExitStack() as stack:
        running = []
        for server in servers:
            stack.callback(server.close)
            print(f"{scenario.name}: starting {server.peer.name} …", file=sys.stderr)
            try:
                server.start(models)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                server.measured.failure = str(error)
                server.close()
                if server.peer.name == MLAPP:
                    raise
                print(f"{scenario.name}: {server.peer.name}: {error}", file=sys.stderr)
                continue
            running.append(server)
            is_complete = {one.peer.name for one in running} == {LIMIT, EMPTY, MLAPP}
            if is_complete and 1 in scenario.connections and not scenario.streams:
                # Measure before the other servers start, because some use CPU time even when idle.
                print(f"{scenario.name}: a lone request …", file=sys.stderr)
                alone = _measure_lone_request(models, scenario, running, rounds * seconds * 2)
        # Measure all rounds of one number of connections together, because BentoML's batching adapts slowly.
        for number in scenario.connections:
            for server in running:
                server.load(number, WARM_UP_SECONDS)
            for turn in range(rounds):
                print(f"{scenario.name}: {number} connections, round {turn + 1} of {rounds} …", file=sys.stderr)
                for server in running:
                    server.measure(number, seconds)
    return Contest(scenario, alone, {server.peer.name: server.measured for server in servers})
