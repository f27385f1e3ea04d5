"""`python -m benchmarks.growth`: how CPU time and memory grow with rows, columns and categories, in a few minutes.

Each point is a new process that trains a trivial model, and decodes, predicts and encodes a request like the server.
The growth is the time per unit, relative to the previous point: 1.0 is linear.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

AXES = {
    "rows in a request": ("rows", (1, 100, 10_000, 1_000_000)),
    "columns": ("columns", (1, 100, 1_000, 10_000)),
    "categories of a column": ("categories", (10, 1_000, 100_000, 1_000_000)),
}
REPEATS = 5
"""Number of measurements of a request, of which the fastest counts."""


def measure_point(axis: str, size: int) -> dict[str, float]:
    """CPU seconds of training and of a request, and the peak memory of the process in MB."""
    import numpy as np
    import pandas as pd

    from mlapp import App
    from mlapp.serving.decoding.json_body import encode_answer
    from mlapp.serving.inference.served_model import serve_trained_model

    app = App("growth", target="y")

    @app.data_reader
    def read() -> pd.DataFrame:
        if axis == "categories":
            texts = [f"text {number}" for number in range(size)]
            return pd.DataFrame({"a": pd.Categorical(texts), "y": np.arange(size, dtype=float)})
        columns = size if axis == "columns" else 8
        table = pd.DataFrame(np.ones((200, columns)), columns=[f"c{number}" for number in range(columns)])
        return table.assign(y=np.arange(200.0))

    class Zeros:
        """A model that costs nothing."""

        def fit(self, features: pd.DataFrame, target: pd.Series) -> Zeros:
            return self

        def predict(self, features: pd.DataFrame) -> np.ndarray:
            return np.zeros(len(features))

    app.model(Zeros)

    @app.evaluator
    def evaluate(model: Zeros, features: pd.DataFrame, target: pd.Series) -> float:
        return 0.0

    started = time.process_time()
    trained = app.train()
    training = time.process_time() - started
    loaded = serve_trained_model(trained)
    row = ["text 1"] if axis == "categories" else [1.5] * (size if axis == "columns" else 8)
    rows = size if axis == "rows" else 1
    body = json.dumps({"inputs": [row] * rows}).encode()
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        part = loaded.codec.decode_json(body)
        predictions = loaded.list_rows(loaded.predict_features(loaded.codec.combine_parts([part])), rows)
        encode_answer(predictions, loaded.tail, is_unionml=False)
        times.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"training": training, "request": min(times), "memory": peak}


def iterate_table_lines() -> Iterator[str]:
    """The table, in Markdown."""
    yield "| axis | size | training, s | request, ms | growth of the request | memory, MB |"
    yield "|---|--:|--:|--:|--:|--:|"
    for title, (axis, sizes) in AXES.items():
        before: tuple[int, float] | None = None
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.growth", axis, str(size)]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                yield f"| {title} | {size:,} | {process.stderr.strip().splitlines()[-1]:.80} | | | |"
                continue
            point = json.loads(process.stdout.splitlines()[-1])
            growth = ""
            if before is not None:
                growth = f"{(point['request'] / before[1]) / (size / before[0]):.2f}"
            before = size, point["request"]
            times = f"{point['training']:.2f} | {1000 * point['request']:.3f}"
            yield f"| {title} | {size:,} | {times} | {growth} | {point['memory']:.0f} |"


def main() -> None:
    """Measure one point, or print the table."""
    if len(sys.argv) == 3:
        print(json.dumps(measure_point(sys.argv[1], int(sys.argv[2]))))
        return
    for line in iterate_table_lines():
        print(line, flush=True)


if __name__ == "__main__":
    main()
