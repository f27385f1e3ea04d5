"""The model that every server serves: logistic regression on scikit-learn's digits.

`python digits.py FOLDER` fits it on every row and writes rows.joblib and stream.joblib (fitted on an array),
records.joblib (fitted on a DataFrame), sleep.joblib (rows, on a pretended device) and samples.json (rows with the
answers to expect).
"""

import json
import sys
import threading
import time
from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

PARAMETERS = {"C": 1.0, "max_iter": 1000}
SAMPLES = 64
BATCH_SECONDS = 0.005

_device = threading.Lock()


class OnDevice(LogisticRegression):
    """Takes 5 ms a batch whatever its size, one batch at a time: what a GPU looks like to a server."""

    def predict(self, X):
        with _device:
            time.sleep(BATCH_SECONDS)
            return super().predict(X)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table, target = load_digits(return_X_y=True, as_frame=True)
    array = table.to_numpy()
    models = {
        "rows": LogisticRegression(**PARAMETERS).fit(array, target),
        "records": LogisticRegression(**PARAMETERS).fit(table, target),
        "sleep": OnDevice(**PARAMETERS).fit(array, target),
    }
    models["stream"] = models["rows"]
    for name, model in models.items():
        joblib.dump(model, folder / f"{name}.joblib")
    samples = {
        "columns": list(table.columns),
        "rows": array[:SAMPLES].tolist(),
        "expected": models["rows"].predict(array[:SAMPLES]).tolist(),
    }
    (folder / "samples.json").write_text(json.dumps(samples))


if __name__ == "__main__":
    # Pickled as digits.OnDevice, which a server can import, and not as __main__.OnDevice.
    from digits import main as train

    train(Path(sys.argv[1]))
