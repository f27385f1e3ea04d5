"""`python -m benchmarks.monitoring cost|kills|report|evaluation`: what monitoring costs, and how much it can take.

cost: CPU of the server for each request, memory and p99 with `monitor:` off, drift, sample and all, in turns.
kills: 200 kills of a process that writes the log; every segment must be readable.
report: 24 windows of 64 features as a page. evaluation: 1e7 logged rows with truths, by the app's evaluator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.serving import load

PROGRAM = Path(sys.executable).with_name("mlapp")
PEERS = Path(__file__).parent / "peers" / "mlapp"
MODES = {
    "off": "{drift: false, log: off}",
    "drift": "{log: off}",
    "sample": "{log: sample}",
    "all": "{log: all}",
}
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def _serve(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    log = folder / "server.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [PROGRAM, "serve", "--port", "0"], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, env=ENVIRON
        )
    try:
        while not (found := re.search(r"answers at (https?://\S+?)/?\n", log.read_text())):
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield psutil.Process(server.pid), found[1]
    finally:
        server.terminate()
        server.wait(40)


def measure_cost(arguments: argparse.Namespace) -> int:
    """Print the cost of each mode, as a ratio of that of `off`: the median of the rounds."""
    for scenario in arguments.scenarios:
        with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
            first = Path(place) / "off"
            first.mkdir()
            shutil.copy(PEERS / scenario / "app.py", first / "app.py")
            subprocess.run([PROGRAM, "train"], cwd=first, check=True, capture_output=True, env=ENVIRON)
            servers = {}
            for mode, settings in MODES.items():
                folder = Path(place) / mode
                if folder != first:
                    shutil.copytree(first, folder)
                access = "serve: {access_log: false}\n"
                (folder / "mlapp.yaml").write_text(f"{access}monitor: {settings}\n")
                servers[mode] = stack.enter_context(_serve(folder))
            body = b'{"inputs": [' + _row(servers["off"][1], scenario) + b"]}"
            _run_rounds(scenario, servers, body, arguments)
    return 0


def _row(url: str, scenario: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(f"{url}/model") as answer:
        (example,) = json.load(answer)["example"]["inputs"]
    if scenario == "records" or not isinstance(example, dict):
        return json.dumps(example).encode()
    return json.dumps(list(example.values())).encode()


def _run_rounds(
    scenario: str, servers: dict[str, tuple[psutil.Process, str]], body: bytes, arguments: argparse.Namespace
) -> None:
    seen: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in servers}
    memory = dict.fromkeys(servers, 0.0)
    for number in range(arguments.rounds + 1):
        order = list(servers.items())
        for mode, (process, url) in order if number % 2 else reversed(order):
            before = process.cpu_times()
            found = load.run(f"{url}/predict", body, 32, arguments.seconds)
            time.sleep(1.5)  # until what was recorded last is counted too
            after = process.cpu_times()
            assert not found.errors, found
            cpu = after.user + after.system - before.user - before.system
            memory[mode] = max(memory[mode], process.memory_info().rss / 1e6)
            if number:  # the first warms all up
                seen[mode].append((cpu / found.requests * 1e6, found.p99, found.rate))
    print(f"{scenario}: mode, CPU us a request, ratios to off of CPU, p99 and rate, memory beyond off's in MB")
    for mode, rounds in seen.items():
        ratios = [
            statistics.median(own[at] / off[at] for own, off in zip(rounds, seen["off"], strict=True))
            for at in range(3)
        ]
        cpu = statistics.median(own[0] for own in rounds)
        extra = memory[mode] - memory["off"]
        print(f"  {mode:7}{cpu:7.1f}  " + "  ".join(f"{ratio:.3f}" for ratio in ratios) + f"  {extra:+.0f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("what", choices=["cost"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--scenarios", nargs="+", default=["rows", "records"])
    arguments = parser.parse_args()
    return measure_cost(arguments)


if __name__ == "__main__":
    sys.exit(main())
