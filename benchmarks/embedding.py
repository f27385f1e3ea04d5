"""`python -m benchmarks.embedding`: compares the costs of a model inside another program with their limits.

- time: a prediction from Python, from a view and through WSGI, relative to decoding, predicting and encoding alone.
- memory: four preforked workers of gunicorn relative to one, as proportional set size (PSS).
- Lambda: CPU time until the first answer, minus that of a process that only loads the model and predicts; and CPU time
  of a warm invocation, minus that of the model.

Times are CPU seconds of the best round, so that other work on the machine has little effect.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOUNDS = {"predict": 1.2, "view": 1.2, "wsgi": 1.2, "memory": 1.3, "cold": 0.3, "warm": 0.001}
APP = """
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from mlapp import App

COLUMNS = [f"c{at}" for at in range(16)]
app = App("rows", target="y")


@app.data_reader
def read(rows: int = 500) -> pd.DataFrame:
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 16)), columns=COLUMNS)
    return table.assign(y=(table["c0"] + np.random.default_rng(1).normal(size=rows) > 0).astype(int))


@app.model
def build(trees: int = 0):
    return RandomForestClassifier(trees, max_depth=30) if trees else LogisticRegression()
"""
SITE = """
from app import app
from mlapp.wsgi import create_wsgi

application = create_wsgi(app)
application.load_model()
"""
LIBRARIES = """
import time
import pandas as pd
import sklearn.linear_model
import skops.io
skops.io.load({file!r}).predict(pd.DataFrame([{record!r}]))
print(time.process_time())
"""
LAMBDA = """
import time
from mlapp.aws_lambda import __main__, loop
loop.open_model_function(None).answer_event({body!r}, 30)
print(time.process_time())
"""
RECORD = {f"c{at}": at / 7 for at in range(16)}
BODY = json.dumps({"inputs": [RECORD]}).encode()


def measure_cpu_time(call: Callable[[], Any], calls: int = 200, rounds: int = 9) -> float:
    """CPU seconds per call, in the best round."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            call()
        times.append((time.process_time() - start) / calls)
    return min(times)


def measure_time(app: Any, trained: Any) -> dict[str, float]:
    """CPU time of each way to predict, relative to the codec; and CPU seconds of a warm Lambda without the model."""
    from mlapp.aws_lambda.model_function import ModelFunction
    from mlapp.aws_lambda.settings import LambdaSettings
    from mlapp.config import Serve
    from mlapp.embed.host import ModelHost
    from mlapp.serving.decoding.json_body import encode_answer
    from mlapp.serving.inference.batch_predict import predict_batch
    from mlapp.wsgi import create_wsgi

    host = ModelHost(app, trained, Serve())
    loaded = host.open_endpoint().current
    application = create_wsgi(app, model=trained, settings=Serve())
    function = ModelFunction(host, LambdaSettings())

    def run_codec() -> bytes:
        part = loaded.codec.decode_json(BODY)
        return encode_answer(predict_batch(loaded, [part], part.rows)[0], loaded.tail, is_unionml=False)

    def call_wsgi() -> bytes:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "CONTENT_LENGTH": str(len(BODY)),
                   "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(BODY)}  # fmt: skip
        return b"".join(application(environ, lambda status, headers: None))

    features = loaded.codec.combine_parts([loaded.codec.decode_json(BODY)])
    model = measure_cpu_time(lambda: loaded.predict_features(features))
    codec = measure_cpu_time(run_codec)
    ratios = {
        "predict": measure_cpu_time(lambda: loaded.predictor.predict(RECORD)) / codec,
        "view": measure_cpu_time(lambda: host.predict(RECORD)) / codec,
        "wsgi": measure_cpu_time(call_wsgi) / codec,
        "warm": measure_cpu_time(lambda: function.answer_event(BODY, 30)) - model,
    }
    host.close_model()
    application.close_model()
    return ratios


def run_cold(code: str, rounds: int = 4) -> float:
    """The CPU seconds that the code prints, in the best of several new processes."""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(rounds)]
    return min(float(run.stdout) for run in runs)


def measure_memory(folder: Path, workers: int, port: int) -> int:
    """The PSS in bytes of gunicorn with this number of workers, after each has predicted."""
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", f"--workers={workers}", "--preload"]
    process = subprocess.Popen([*command, "site_of_rows:application"], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", BODY, {"Content-Type": "application/json"})
        answered = 0
        while answered < 40 * workers:
            try:
                with urllib.request.urlopen(request) as answer:
                    answered += answer.status == 200
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return sum(read_pss(int(pid)) for pid in (process.pid, *children))
    finally:
        process.terminate()
        process.wait()


def read_pss(pid: int) -> int:
    """A process's proportional set size in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> int:
    """Print each number and its limit. Returns 1 if one exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=300, help="Size of the forest whose memory is shared.")
    parser.add_argument("--port", type=int, default=8733)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "app.py").write_text(APP)
        (folder / "mlapp.yaml").write_text("name: rows\nserve: {access_log: false}\n")
        (folder / "site_of_rows.py").write_text(SITE)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        from app import app

        trained = app.train()
        app.save()
        results = measure_time(app, trained)
        file = str(app.store().get("rows", "latest").files / "model.skops")
        results["cold"] = run_cold(LAMBDA.format(body=BODY)) - run_cold(LIBRARIES.format(file=file, record=RECORD))
        app.train(trees=options.trees, rows=20_000)
        app.save()
        one, four = (measure_memory(folder, workers, options.port) for workers in (1, 4))
        results["memory"] = four / one
        print(f"PSS: one worker {one / 1e6:.0f} MB, four workers {four / 1e6:.0f} MB")
    for name, bound in BOUNDS.items():
        print(f"{name:8} {results[name]:8.4f}  bound {bound}  {'ok' if results[name] <= bound else 'BEYOND'}")
    return int(any(results[name] > bound for name, bound in BOUNDS.items()))


if __name__ == "__main__":
    sys.exit(main())
