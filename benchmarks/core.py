"""The main job against plain Python that does the same work: `make bench`."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ENVIRON, Run, in_turn, mlapp, python, ratio, run

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
LARGE = """
import numpy as np, pandas as pd
ROWS = 1_000_000
def read():
    values = np.random.default_rng(0).random((ROWS, 20))
    frame = pd.DataFrame(values, columns=[f"x{at}" for at in range(20)])
    frame["y"] = (frame["x0"] > 0.5).astype("int64")
    return frame
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
    from sklearn.model_selection import train_test_split
    frame = read()
    train, test = train_test_split(frame, test_size=0.2, random_state=0, stratify=frame["y"])
    del frame
    model = Mean().fit(train.drop(columns="y"), train["y"])
    print([model.score(part.drop(columns="y"), part["y"]) for part in (train, test)])
main()
"""
)
LARGE_MLAPP = (
    LARGE
    + """
import sklearn.model_selection
from mlapp import App
app = App("large", target="y")
app.data_reader(read)
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
TABLE_MIB = 1_000_000 * 21 * 8 / 1024**2


def main() -> None:
    """Measure, and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(mlapp("init", "digits"), folder)
        project = folder / "digits"
        run(mlapp("train"), project)
        rows = [
            *_commands(project, rounds),
            _train(project, rounds),
            _memory(folder, max(1, rounds // 3)),
            _serve(project, rounds),
        ]
    print("| measure | against | ratio | goal |\n|---|---|---|---|")
    for what, against, found, goal in rows:
        print(f"| {what} | {against} | {found:.2f} | {goal} |")


def _commands(project: Path, rounds: int) -> list[tuple[str, str, float, str]]:
    typer = python("import typer")
    commands = [typer, mlapp("--help"), mlapp("models", "list")]
    found = in_turn([lambda command=command: run(command, project) for command in commands], rounds * 2)  # type: ignore[misc]
    return [
        ("`mlapp --help`", "`python -c 'import typer'`", ratio(found[1], found[0], _wall), "≤ 2.5"),
        ("`mlapp models list`", "`python -c 'import typer'`", ratio(found[2], found[0], _wall), "≤ 3.5"),
    ]


def _train(project: Path, rounds: int) -> tuple[str, str, float, str]:
    found = in_turn([lambda: run(mlapp("train"), project), lambda: run(python(TRAIN), project)], rounds)
    return ("`mlapp train`, template basic", "a plain script", ratio(found[0], found[1], _wall), "≤ 1.2")


def _memory(folder: Path, rounds: int) -> tuple[str, str, float, str]:
    found = in_turn([lambda: run(python(LARGE_MLAPP), folder), lambda: run(python(LARGE_SCRIPT), folder)], rounds)
    extra = max(one.peak - other.peak for one, other in zip(*found, strict=True)) / TABLE_MIB
    return ("1e6 × 20 through all stages: peak memory beyond the script's", "the table", extra, "≤ 1")


def _serve(project: Path, rounds: int) -> tuple[str, str, float, str]:
    found = in_turn([lambda: _until_ready(project), lambda: run(python(LOAD), project)], rounds)
    return ("`mlapp serve` until ready", "importing and loading alone", ratio(found[0], found[1], _wall), "≤ 1.4")


def _until_ready(project: Path) -> Run:
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


def _wall(run: Run) -> float:
    return run.wall


if __name__ == "__main__":
    main()
