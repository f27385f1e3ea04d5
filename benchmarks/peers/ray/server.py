"""Ray Serve with one replica and dynamic batching."""

import os
import sys
import threading

import joblib
import numpy as np
import pandas as pd
import ray
from ray import serve

RECORDS = os.environ["SCENARIO"] == "records"
MODEL = os.environ["MODEL"]


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.5})
class Digits:
    def __init__(self) -> None:
        self.model = joblib.load(MODEL)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def predict(self, parts: list) -> list:
        rows = [row for part in parts for row in part]
        predictions = self.model.predict(pd.DataFrame(rows) if RECORDS else np.array(rows)).tolist()
        answers, at = [], 0
        for part in parts:
            answers.append(predictions[at : at + len(part)])
            at += len(part)
        return answers

    async def __call__(self, request) -> dict:
        return {"predictions": await self.predict((await request.json())["inputs"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Digits.bind(), route_prefix="/predict", logging_config={"enable_access_log": False})
    threading.Event().wait()
