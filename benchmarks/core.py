"""The main job against plain Python that does the same work: `make bench`."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ENVIRON, Run, measure_in_turn, mlapp, python, ratio, run

TRAIN = """
import numpy as np, pandas as pd, skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
frame = load_digits(as_frame=True).frame
train, test = train_test_split(frame, test_size=0.2, random_state=0, stratify=frame["target"])
model = LogisticRegression(max_iter=1000)
model.fit(train.drop(columns="target"), train["target"])
print([model.score(part.drop(columns="target"), part["target"]) for part in (train, test)])
skops.io.dump(model, "model.skops")
"""
LARGE_FILE = """
import sys
import numpy as np, pyarrow as pa
from pyarrow import parquet
rows, numbers = int(sys.argv[1]), np.random.default_rng(0)
writer = None
for start in range(0, rows, 500_000):
    part = {f"x{at}": numbers.random(min(500_000, rows - start)) for at in range(20)}
    part = pa.table({**part, "y": (part["x0"] > 0.5).astype("int64")})
    writer = writer or parquet.ParquetWriter("large.parquet", part.schema, compression="none", use_dictionary=False)
    writer.write_table(part)
writer.close()
"""
LARGE = """
import numpy as np, pandas as pd, pyarrow.parquet
import sklearn.model_selection
class Mean:
    def fit(self, features, target):
        self.mean = float(features["x0"].mean()); return self
    def predict(self, features):
        return np.full(len(features), self.mean)
    def score(self, features, target):
        return float((self.predict(features) == target).mean())
"""
LARGE_SCRIPT = (
    LARGE
    + """
def main():
    frame = pd.read_parquet("large.parquet")
    train, test = sklearn.model_selection.train_test_split(frame, test_size=0.2, random_state=0, stratify=frame["y"])
    del frame
    model = Mean().fit(train.drop(columns="y"), train["y"])
    print([model.score(part.drop(columns="y"), part["y"]) for part in (train, test)])
main()
"""
)
LARGE_MLAPP = (
    LARGE
    + """
from mlapp import App
app = App("large", target="y")
app.data_reader.files("large.parquet")
app.model(Mean, format="joblib")
print(app.train().metrics)
"""
)
LOAD = """
import socket, fastapi, uvicorn, msgspec, pandas, prometheus_client, sklearn.linear_model, skops.io
import pathlib
file = next(pathlib.Path(".mlapp/store/digits/files").glob("*/model.skops"))
model = skops.io.load(file, trusted=[])
"""
NOTHING = LARGE + "import mlapp.training, mlapp.data.files\n"
ROW_MIB = 21 * 8 / 1024**2


def main() -> None:
    """Measure, and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large table")
    options = parser.parse_args()
    rounds = options.rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(mlapp("init", "digits"), folder)
        project = folder / "digits"
        run(mlapp("train"), project)
        rows = [
            *_measure_command_start(project, rounds),
            _measure_training(project, rounds),
            *_measure_table_memory(folder, max(1, rounds // 3), options.rows),
            _measure_server_start(project, rounds),
        ]
    print("| measure | against | ratio | goal |\n|---|---|---|---|")
    for measure, against, value, goal in rows:
        print(f"| {measure} | {against} | {value:.2f} | {goal} |")


def _measure_command_start(project: Path, rounds: int) -> list[tuple[str, str, float, str]]:
    typer = python("import typer")
    commands = [typer, mlapp("--help"), mlapp("models", "list")]
    runs = measure_in_turn([lambda command=command: run(command, project) for command in commands], rounds * 2)  # type: ignore[misc]
    return [
        ("`mlapp --help`", "`python -c 'import typer'`", ratio(runs[1], runs[0], _get_wall_time), "≤ 2.5"),
        ("`mlapp models list`", "`python -c 'import typer'`", ratio(runs[2], runs[0], _get_wall_time), "≤ 3.5"),
    ]


def _measure_training(project: Path, rounds: int) -> tuple[str, str, float, str]:
    runs = measure_in_turn([lambda: run(mlapp("train"), project), lambda: run(python(TRAIN), project)], rounds)
    return ("`mlapp train`, template basic", "a plain script", ratio(runs[0], runs[1], _get_wall_time), "≤ 1.2")


def _measure_table_memory(folder: Path, rounds: int, rows: int) -> list[tuple[str, str, float, str]]:
    run([*python(LARGE_FILE), str(rows)], folder)
    commands = [python(LARGE_MLAPP), python(LARGE_SCRIPT), python(NOTHING)]
    ours, script, nothing = measure_in_turn(
        [lambda command=command: run(command, folder) for command in commands], rounds
    )  # type: ignore[misc]
    measure = f"{rows:,} × 20 from Parquet through all stages: peak memory beyond "
    table_rows = []
    for name, others, goal in (("the script's", script, "≤ 0"), ("the imports", nothing, "≤ 2.5")):
        extra = max(one.peak - other.peak for one, other in zip(ours, others, strict=True)) / (rows * ROW_MIB)
        table_rows.append((measure + name, "the table", extra, goal))
    return table_rows


def _measure_server_start(project: Path, rounds: int) -> tuple[str, str, float, str]:
    runs = measure_in_turn([lambda: _time_until_ready(project), lambda: run(python(LOAD), project)], rounds)
    return (
        "`mlapp serve` until ready",
        "importing and loading alone",
        ratio(runs[0], runs[1], _get_wall_time),
        "≤ 1.4",
    )


def _time_until_ready(project: Path) -> Run:
    began = time.perf_counter()
    command = mlapp("serve", "--port", "0")
    server = subprocess.Popen(command, cwd=project, env=ENVIRON, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    ready = next(line for line in server.stderr if re.search(r"http://", line))
    took = time.perf_counter() - began
    assert ready
    server.send_signal(signal.SIGTERM)
    server.wait()
    return Run(took, took, 0.0)


def _get_wall_time(run: Run) -> float:
    return run.wall


if __name__ == "__main__":
    main()
