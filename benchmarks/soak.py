"""`python -m benchmarks.soak`: checks that the server's memory does not grow in ten minutes of full load.

wrk sends valid requests in all formats, and invalid ones, and closes its connections at the end of each step. The
access log is on. After the first step, which is a warm-up, memory may grow by at most `--bound`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

APP = Path(__file__).parent / "peers" / "mlapp" / "records" / "app.py"
PROGRAM = Path(sys.executable).with_name("mlapp")
CONNECTIONS = 32
SCRIPT = """
local at = 0
local sent = {%s}
request = function()
  at = at %% #sent + 1
  return wrk.format("POST", sent[at][1], sent[at][2], sent[at][3])
end
done = function(summary, latency, requests)
  io.write(string.format('\\nRESULT {"requests": %%d, "status": %%d, "socket": %%d, "p99": %%f}\\n', summary.requests,
    summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(99)))
end
"""


def _make_request_bodies(url: str) -> list[tuple[str, dict[str, str], str]]:
    """Path, headers and body of each request. One in eight is invalid."""
    with urllib.request.urlopen(f"{url}/model") as answer:
        (record,) = json.load(answer)["example"]["inputs"]
    records, rows = json.dumps({"inputs": [record]}), json.dumps({"inputs": [list(record.values())]})
    csv = ",".join(record) + "\n" + ",".join(map(str, record.values())) + "\n"
    media = {"Content-Type": "application/json"}
    tensor = {"name": "inputs", "shape": [1, len(record)], "datatype": "FP64", "data": list(record.values())}
    return [
        *[("/predict", media, records)] * 2,
        *[("/predict", media, rows)] * 2,
        ("/predict", {**media, "X-Request-Timeout": "20"}, records),
        ("/predict", {"Content-Type": "text/csv"}, csv),
        ("/v2/models/digits/infer", media, json.dumps({"inputs": [tensor]})),
        ("/predict", media, json.dumps({"inputs": [{**record, "unknown": 1}]})),
    ]


def _make_wrk_script(bodies: list[tuple[str, dict[str, str], str]]) -> str:
    lines = []
    for path, headers, body in bodies:
        fields = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
        lines.append(f"{{{json.dumps(path)}, {{{fields}}}, [==[{body}]==]}}")
    return SCRIPT % ",\n".join(lines)


def _start_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    log = folder / "server.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [PROGRAM, "serve", "--port", "0"], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    while not (match := re.search(r"answers at (https?://\S+?)/?\n", log.read_text())):
        if server.poll() is not None:
            raise RuntimeError(log.read_text())
        time.sleep(0.1)
    return server, match[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load (default 10)")
    parser.add_argument("--steps", type=int, default=10, help="looks at the memory (default 10)")
    parser.add_argument(
        "--bound", type=float, default=10.0, help="MB that it may grow after the first step (default 10)"
    )
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is missing: `apt-get install wrk`.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(APP, folder / "app.py")
        subprocess.run([PROGRAM, "train"], cwd=folder, check=True, capture_output=True)
        server, url = _start_server(folder)
        try:
            bodies = _make_request_bodies(url)
            script = folder / "soak.lua"
            script.write_text(_make_wrk_script(bodies))
            return _watch_memory_under_load(psutil.Process(server.pid), url, script, len(bodies), arguments)
        finally:
            server.terminate()
            server.wait(40)


def _watch_memory_under_load(
    server: psutil.Process, url: str, script: Path, kinds: int, arguments: argparse.Namespace
) -> int:
    seconds = max(1, round(60 * arguments.minutes / arguments.steps))
    memory = [server.memory_info().rss / 1e6]
    print(f"at the start: {memory[0]:.1f} MB", flush=True)
    problem = ""
    for step in range(1, arguments.steps + 1):
        # wrk closes its connections at the end of each step, while requests are in progress.
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        summary = json.loads(output.rpartition("RESULT ")[2])
        memory.append(server.memory_info().rss / 1e6)
        minutes, rate, p99 = step * seconds / 60, summary["requests"] / seconds, summary["p99"] / 1000
        print(
            f"after {minutes:.1f} min: {memory[-1]:.1f} MB, {rate:,.0f} requests a second, p99 {p99:.0f} ms,"
            f" {server.num_fds()} files, {server.num_threads()} threads",
            flush=True,
        )
        refused = summary["requests"] / kinds
        if summary["socket"] or abs(summary["status"] - refused) > 0.01 * refused + CONNECTIONS:
            problem = (
                f"{summary['status']} answers of {summary['requests']} were not 200 and {summary['socket']} failed"
            )
    growth = memory[-1] - memory[1]
    print(f"grown after the first step: {growth:+.1f} MB; {arguments.bound:g} are allowed", flush=True)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem or growth > arguments.bound else 0


if __name__ == "__main__":
    sys.exit(main())
