"""`python -m benchmarks.monitoring cost|report|evaluation`: what monitoring costs, and how much it can take.

cost: CPU of the server for each request, memory and p99 with `monitor:` off, drift, sample and all, in turns. Before
each measurement, the same load spends what monitoring may count and log at once after a pause.
report: 24 windows of 64 features as a page. evaluation: 1e7 logged rows with truths, by the app's evaluator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
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
WARM = 2.0
"""Seconds of load before each measurement. Each server pauses while the others are measured."""
ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextlib.contextmanager
def _start_server(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    log = folder / "server.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(
            [PROGRAM, "serve", "--port", "0"], cwd=folder, stdout=subprocess.DEVNULL, stderr=errors, env=ENVIRON
        )
    try:
        while not (match := re.search(r"answers at (https?://\S+?)/?\n", log.read_text())):
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield psutil.Process(server.pid), match[1]
    finally:
        server.terminate()
        server.wait(40)


def measure_cost(arguments: argparse.Namespace) -> int:
    """Print the cost of each mode relative to `off`, as the median of the rounds."""
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
                servers[mode] = stack.enter_context(_start_server(folder))
            body = b'{"inputs": [' + _encode_example_row(servers["off"][1], scenario) + b"]}"
            _run_cost_rounds(scenario, servers, body, arguments)
    return 0


def _encode_example_row(url: str, scenario: str) -> bytes:
    import urllib.request

    with urllib.request.urlopen(f"{url}/model") as answer:
        (example,) = json.load(answer)["example"]["inputs"]
    if scenario == "records" or not isinstance(example, dict):
        return json.dumps(example).encode()
    return json.dumps(list(example.values())).encode()


def _run_cost_rounds(
    scenario: str, servers: dict[str, tuple[psutil.Process, str]], body: bytes, arguments: argparse.Namespace
) -> None:
    costs: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in servers}
    memory = dict.fromkeys(servers, 0.0)
    for number in range(arguments.rounds + 1):
        order = list(servers.items())
        for mode, (process, url) in order if number % 2 else reversed(order):
            load.run_wrk(f"{url}/predict", [body], 32, WARM)
            before = process.cpu_times()
            result = load.run_wrk(f"{url}/predict", [body], 32, arguments.seconds)
            time.sleep(1.5)  # until the last rows are counted, too
            after = process.cpu_times()
            assert not result.errors, result
            cpu = after.user + after.system - before.user - before.system
            memory[mode] = max(memory[mode], process.memory_info().rss / 1e6)
            if number:  # the first round is a warm-up
                costs[mode].append((cpu / result.requests * 1e6, result.p99, result.rate))
    print(f"{scenario}: mode, CPU us a request, ratios to off of CPU, p99 and rate, memory beyond off's in MB")
    for mode, rounds in costs.items():
        ratios = [
            statistics.median(own[at] / off[at] for own, off in zip(rounds, costs["off"], strict=True))
            for at in range(3)
        ]
        cpu = statistics.median(own[0] for own in rounds)
        extra = memory[mode] - memory["off"]
        print(f"  {mode:7}{cpu:7.1f}  " + "  ".join(f"{ratio:.3f}" for ratio in ratios) + f"  {extra:+.0f}", flush=True)


WIDE = """
import numpy as np
import pandas as pd
from mlapp import App

app = App("wide", target="y")


class First:
    classes_ = np.array([0, 1])

    def fit(self, features, target):
        return self

    def predict(self, features):
        return (np.asarray(features)[:, 0] > 0).astype(int)


@app.data_reader
def read(rows: int = 20_000) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(rows, COLUMNS))
    table = pd.DataFrame(values, columns=[f"f{at}" for at in range(COLUMNS)])
    return table.assign(y=(table["f0"] > 0).astype(int))


app.model(First)


@app.saver
def save(model, path) -> None:
    (path / "first").write_text("")


@app.loader
def load(path) -> First:
    return First()


@app.evaluator
def evaluate(model, features, target) -> dict[str, float]:
    return {"accuracy": float((model.predict(features) == np.asarray(target)).mean())}
"""


def _train_wide_project(folder: Path, columns: int, settings: str) -> None:
    (folder / "app.py").write_text(WIDE.replace("COLUMNS", str(columns)))
    (folder / "mlapp.yaml").write_text(f"monitor: {settings}\n")
    subprocess.run([PROGRAM, "train"], cwd=folder, check=True, capture_output=True, env=ENVIRON)


def measure_report(arguments: argparse.Namespace) -> int:
    """Write the page of 24 windows of 64 features."""
    import msgspec
    import numpy as np

    from mlapp.baseline import read_baseline
    from mlapp.monitoring.counts import Counter, Counts
    from mlapp.monitoring.inspection import open_place_for_inspection
    from mlapp.monitoring.report import write_report
    from mlapp.project import Project

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _train_wide_project(folder, 64, "{window: 1h}")
        project = Project.find(folder)
        baseline = read_baseline(project.store.get("wide").files)
        assert baseline is not None
        place, random = open_place_for_inspection(project), np.random.default_rng(1)
        begin = int(time.time() // 3600 - 24) * 3600
        for number in range(24):
            counter = Counter(baseline)
            counter.add_features(random.normal(size=(2_000, 64)))
            counter.add_predictions({"prediction": random.integers(0, 2, 2_000).tolist()})
            since = begin + number * 3600
            counts = Counts(
                version="1", since=since, until=since + 3600, rows=2_000, columns=counter.list_column_counts()
            )
            place.storage.create_key(place.key(f"counts/1/{since}-3600/r-000000001.json"), msgspec.json.encode(counts))
        for _ in range(3):
            started = time.process_time()
            write_report(project, folder / "report.html")
            took = time.process_time() - started
        print(f"report: {took:.2f} s of CPU, {(folder / 'report.html').stat().st_size / 1e6:.2f} MB")
    return 0


def measure_evaluation(arguments: argparse.Namespace) -> int:
    """Evaluate logged rows of 24 windows, all with truths, in a new process."""
    import numpy as np
    import pyarrow as pa

    from mlapp.monitoring.inspection import open_place_for_inspection
    from mlapp.monitoring.place import Place
    from mlapp.monitoring.segments import FORMAT, META, encode_segment_table, format_segment_hour
    from mlapp.project import Project

    rows, columns, windows = arguments.rows, 16, 24
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _train_wide_project(folder, columns, "{window: 1h, log: all, max_size: 100GB}")
        place: Place = open_place_for_inspection(Project.find(folder))
        random, size = np.random.default_rng(1), 100_000
        begin = int(time.time() // 3600 - windows) * 3600
        for number in range(rows // size):
            at = begin + number * windows * 3600 // (rows // size)
            values = random.normal(size=(columns, size))
            ids = pa.array([f"r{number}-{row}" for row in range(size)])
            own = {
                "id": ids, "request": ids, "row": pa.array(np.zeros(size, np.int32)),
                "time": pa.array(np.full(size, at * 1_000_000)).cast(pa.timestamp("us", tz="UTC")),
                "version": pa.repeat(pa.scalar("1"), size), "latency": pa.array(np.full(size, 0.001, np.float32)),
                "weight": pa.array(np.ones(size, np.float32)),
            }  # fmt: skip
            table = pa.table({**own, **{f"f{column}": values[column] for column in range(columns)}})
            table = table.append_column("prediction", pa.array((values[0] > 0).astype(np.int64)))
            key = place.key("log/1", format_segment_hour(at), f"r-{number + 1:09}-{number + 1:09}.parquet")
            content = encode_segment_table(table.replace_schema_metadata({META: FORMAT}), is_quick=True)
            place.storage.create_key(key, content)
            truths = pa.table({
                "request": ids, "row": own["row"], "keys": pa.nulls(size, pa.string()),
                "truth": pa.array((values[0] > 0).astype(int).astype(str)), "received": pa.array(np.full(size, number)),
            })  # fmt: skip
            day = time.strftime("%Y-%m-%d", time.gmtime())
            place.storage.create_key(place.key("truth", day, f"{number}.parquet"), encode_segment_table(truths))
        for number in range(windows):
            since = begin + number * 3600
            content = b'{"version":"1","since":%d,"until":%d,"rows":%d}' % (since, since + 3600, rows // windows)
            place.storage.create_key(place.key(f"counts/1/{since}-3600/r-000000001.json"), content)
        started, before = time.perf_counter(), os.times()
        subprocess.run(
            [PROGRAM, "monitor", "--json"], cwd=folder, check=True, stdout=(folder / "out").open("wb"), env=ENVIRON
        )
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        windows_found = json.loads((folder / "out").read_text())["windows"]
        truth_count = sum(window["truths"] for window in windows_found)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        took = time.perf_counter() - started
        print(
            f"evaluation: {truth_count} truths, {took:.0f} s, {cpu:.0f} s of CPU, peak of all children {memory:.2f} GB"
        )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("what", choices=["cost", "report", "evaluation"])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--scenarios", nargs="+", default=["rows", "records"])
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the evaluation (default 1e7)")
    arguments = parser.parse_args()
    chosen = {"cost": measure_cost, "report": measure_report, "evaluation": measure_evaluation}
    return chosen[arguments.what](arguments)


if __name__ == "__main__":
    sys.exit(main())
