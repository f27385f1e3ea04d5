"""One scenario's contest: start every server, check its answers, load them in turn."""

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
    """What was measured of one server in one scenario.

    Attributes:
        failure: why there is nothing else, or "".
        extra_bytes: the idle server's memory above a process that imported the same libraries and loaded the model.
        loads: by number of connections, one a round.
        cpu: as `loads`: processor time a request, in microseconds, of all the server's processes.
    """

    failure: str = ""
    extra_bytes: int | None = None
    loads: dict[int, list[load.Load]] = field(default_factory=dict)
    cpu: dict[int, list[float]] = field(default_factory=dict)

    as_dict = asdict


@dataclass
class Server:
    """A peer that runs, or what became of it."""

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
        """What wrk sends."""
        return [self.body(number) for number in range(self.scenario.bodies)]

    def answer(self, number: int) -> Any:
        """The first prediction, where there is one for each row."""
        reply = load.ask(self.port, self.peer.path, self.body(number))
        if self.peer.answer is None:
            return None
        if self.scenario.streams:
            return max(range(len(reply)), key=reply.__getitem__)
        found = self.peer.answer(reply)
        return found[0] if len(found) == self.scenario.rows else f"{len(found)} predictions"

    def start(self, models: Path) -> None:
        """Recreate its folder, start it there, wait for its first answer.

        Raises:
            RuntimeError: it did not start or answers wrongly; the text says how.
        """
        peer, model = self.peer, models / f"{self.scenario.kind}.joblib"
        programs = environments.prepare(peer.environment or peer.folder)
        folder = environments.CACHE / "run" / self.scenario.name / peer.folder
        source = environments.PEERS / peer.folder
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source / self.scenario.kind if (source / self.scenario.kind).is_dir() else source, folder)
        filled = {"port": str(self.port), "model": str(model), "scenario": self.scenario.kind}
        filled["workers"] = str(self.scenario.workers)
        variables = {
            **environments.variables(programs),
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
            baseline = _resident_of_model(programs, variables, model)
            self.measured.extra_bytes = processes.resident_bytes(process.pid) - baseline
            questions = [partial(self.answer, number) for number in range(len(self.samples.rows))]
            try:
                load.check(questions, self.samples.expected)
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
            processes.stop(self.process.pid)
            self.process.wait()

    def load(self, connections: int, seconds: float) -> tuple[load.Load, float]:
        """One run of wrk, and the processor time a request in microseconds."""
        assert self.process
        before = processes.cpu_seconds(self.process.pid)
        url = f"http://127.0.0.1:{self.port}{self.peer.path}"
        seen = load.run(url, self.bodies, connections, seconds)
        used = processes.cpu_seconds(self.process.pid) - before
        return seen, used * 1e6 / max(seen.requests, 1)

    def measure(self, connections: int, seconds: float) -> None:
        """Add one round."""
        seen, cpu = self.load(connections, seconds)
        self.measured.loads.setdefault(connections, []).append(seen)
        self.measured.cpu.setdefault(connections, []).append(cpu)


def _resident_of_model(programs: Path, variables: dict[str, str], model: Path) -> int:
    command = [programs / "python", environments.PEERS / "model" / "resident.py", model]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        size = processes.resident_bytes(process.pid)
        process.stdin.close()
    return size


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _alone(models: Path, scenario: Scenario, servers: Sequence[Server], seconds: float) -> list[dict[str, float]]:
    """What one client sees of the empty app and of mlapp, and the model's own call, in mlapp's environment."""
    programs = environments.prepare("mlapp")
    script, model = environments.PEERS / "model" / "alone.py", models / f"{scenario.kind}.joblib"
    named = [f"{server.peer.name}={server.port}" for server in servers if server.peer.name in (EMPTY, MLAPP)]
    command = [str(part) for part in (programs / "python", script, model, models / "samples.json", seconds, *named)]
    variables = environments.variables(programs)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=variables).stdout
    rounds: list[dict[str, float]] = json.loads(output)
    return rounds


@dataclass
class Contest:
    """What one scenario gave.

    Attributes:
        alone: for a lone request, many short rounds; in each the medians in microseconds of the model's own call
            (`own`), the empty app and mlapp.
        servers: by peer's name.
    """

    scenario: Scenario
    alone: list[dict[str, float]]
    servers: dict[str, Measurements]

    as_dict = asdict


def hold(
    scenario: Scenario,
    peers: Sequence[Peer],
    models: Path,
    samples: Samples,
    *,
    rounds: int,
    seconds: float,
) -> Contest:
    """Start all the peers, then in each round load each of them in turn, so that all share the machine's drift.

    Raises:
        RuntimeError: mlapp did not start or answers wrongly: without it there is nothing to compare.
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
                # Before the others: some are busy even when idle.
                print(f"{scenario.name}: a lone request …", file=sys.stderr)
                alone = _alone(models, scenario, running, rounds * seconds * 2)
        # A number of connections at a time: BentoML's batching takes long to forget the load that it had before.
        for number in scenario.connections:
            for server in running:
                server.load(number, WARM_UP_SECONDS)
            for turn in range(rounds):
                print(f"{scenario.name}: {number} connections, round {turn + 1} of {rounds} …", file=sys.stderr)
                for server in running:
                    server.measure(number, seconds)
    return Contest(scenario, alone, {server.peer.name: server.measured for server in servers})
