"""BentoML with adaptive batching, one worker, no access log, no metrics.

Records come as a list: its batching of DataFrames never answers (1.4.39 takes their shape for their number of rows).
"""

import os

import bentoml
import joblib
import numpy as np
import pandas as pd

RECORDS = os.environ["SCENARIO"] == "records"
Inputs = list[dict[str, float]] if RECORDS else np.ndarray


@bentoml.service(workers=1, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Digits:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, inputs: Inputs) -> np.ndarray:
        return self.model.predict(pd.DataFrame(inputs) if RECORDS else inputs)
