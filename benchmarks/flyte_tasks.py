"""Compares the CPU seconds of the pods of `mlapp train --remote` with those of two tasks written with flytekit.

`python -m benchmarks.flyte_tasks [ROUNDS]` registers both with the small Flyte of the tests, which starts each
container's command as a new process, and runs them in turns. The time to start a pod on a cluster is equal for both,
and not included.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.propeller import WorkflowPhase

APP = """
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("digits", target="target")


@app.data_reader
def read() -> pd.DataFrame:
    return load_digits(as_frame=True).frame


@app.model
def build(C: float = 1.0, max_iter: int = 200) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=max_iter)
"""
BY_HAND = """
import joblib
import pandas as pd
from flytekit import task, workflow
from flytekit.types.file import FlyteFile
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


@task
def read() -> pd.DataFrame:
    return load_digits(as_frame=True).frame


@task
def train(table: pd.DataFrame, c: float) -> tuple[FlyteFile, float]:
    first, second = train_test_split(table, test_size=0.2, random_state=0, stratify=table["target"])
    model = LogisticRegression(C=c, max_iter=200).fit(first.drop(columns="target"), first["target"])
    joblib.dump(model, "model.joblib")
    return FlyteFile("model.joblib"), model.score(second.drop(columns="target"), second["target"])


@workflow
def main(c: float = 1.0) -> tuple[FlyteFile, float]:
    return train(table=read(), c=c)
"""
IMAGE = "registry.example/digits:1"


class Pods:
    """Starts containers as processes, and records their CPU times."""

    def __init__(self) -> None:
        self._files: list[Path] = []

    def start(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        self._files.append(log.with_name("cpu"))
        timed = ["/usr/bin/time", "-o", str(self._files[-1]), "-f", "%U %S", *command]
        with log.open("wb") as output:
            return subprocess.Popen(timed, cwd=cwd, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)

    def take_seconds(self) -> list[float]:
        """CPU seconds of the pods since the last call, user and system."""
        seconds = [sum(map(float, file.read_text().split()[-2:])) for file in self._files]
        self._files = []
        return seconds


def wait_for_run(admin: Flyteadmin, start: Callable[[], object]) -> None:
    """Start a run, and wait for its success."""
    before = set(admin.executions)
    start()
    (name,) = set(admin.executions) - before
    closure = admin.executions[name].message.closure
    while closure.phase in (WorkflowPhase.QUEUED, WorkflowPhase.RUNNING):
        time.sleep(0.2)
        closure = admin.executions[name].message.closure
    if closure.phase != WorkflowPhase.SUCCEEDED:
        raise SystemExit(closure.error.message)


def measure_rounds(root: Path, rounds: int) -> dict[str, list[list[float]]]:
    """CPU seconds of each pod in each round, for both programs."""
    pods, seconds = Pods(), {"mlapp": [], "by hand": []}  # type: tuple[Pods, dict[str, list[list[float]]]]
    with Flyteadmin(root / "flyte").serving() as admin:
        admin.propeller.start = pods.start
        (root / "config.yaml").write_text(f"admin:\n  endpoint: {admin.address}\n  insecure: true\n")
        os.environ["FLYTECTL_CONFIG"] = str(root / "config.yaml")
        project, own = root / "project", root / "by-hand"
        for folder, name, text in ((project, "app.py", APP), (own, "hand.py", BY_HAND)):
            folder.mkdir()
            (folder / name).write_text(text)
        (project / "mlapp.yaml").write_text(f"flyte: {{image: '{IMAGE}'}}\n")

        def run(program: str, folder: Path, *arguments: str) -> None:
            command = [Path(sys.executable).with_name(program), *arguments]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        for turn in range(rounds):
            value = str(0.1 + turn)
            wait_for_run(admin, lambda: run("mlapp", project, "train", "--remote", "-p", f"C={value}"))  # noqa: B023
            seconds["mlapp"].append(pods.take_seconds())
            options = ["--remote", "--copy", "all", "--image", IMAGE, "hand.py", "main", "--c", value]
            wait_for_run(admin, lambda: run("pyflyte", own, "run", *options))  # noqa: B023
            seconds["by hand"].append(pods.take_seconds())
    return seconds


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        results = measure_rounds(Path(folder), rounds)
    for program, seconds in results.items():
        pods = [statistics.median(each) for each in zip(*seconds, strict=True)]
        print(f"{program:8} {sum(pods):5.2f} s of CPU in {len(pods)} pods: {', '.join(f'{pod:.2f}' for pod in pods)}")
    ratios = [sum(own) / sum(hand) for own, hand in zip(results["mlapp"], results["by hand"], strict=True)]
    print(f"ratio    {statistics.median(ratios):5.2f}, goal 1.15")


if __name__ == "__main__":
    main()
