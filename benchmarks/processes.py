"""Measures the time and memory of processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Python stores compiled bytecode by default. The warm-up round writes it.
ENVIRON = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Run:
    """One finished process: wall-clock seconds, CPU seconds, and peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def python(code: str) -> list[str]:
    """The command that runs this code with this Python."""
    return [sys.executable, "-c", code]


def mlapp(*arguments: str) -> list[str]:
    """The command `mlapp …`, as the installed script runs it."""
    return [str(Path(sys.executable).with_name("mlapp")), *arguments]


def run(command: Sequence[str], folder: Path) -> Run:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=ENVIRON, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}: {errors.decode()[-2000:]}")
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure_in_turn(measures: Sequence[Callable[[], Run]], rounds: int) -> list[list[Run]]:
    """Measure A B A B … after a warm-up round, so that changes in the machine's speed affect all measures."""
    for measure in measures:
        measure()
    runs: list[list[Run]] = [[] for _ in measures]
    for _ in range(rounds):
        for at, measure in enumerate(measures):
            runs[at].append(measure())
    return runs


def ratio(runs: Sequence[Run], to: Sequence[Run], figure: Callable[[Run], float]) -> float:
    """The median of the ratios of corresponding runs."""
    return statistics.median(figure(one) / figure(other) for one, other in zip(runs, to, strict=True))
