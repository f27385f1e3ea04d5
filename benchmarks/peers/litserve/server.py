"""LitServe with batching of what waits, its ZeroMQ queue, one API server and one inference worker, no access log."""

import os
import sys
from collections.abc import Iterator

import joblib
import litserve
import numpy as np
import pandas as pd

RECORDS = os.environ["SCENARIO"] == "records"


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request: dict) -> object:
        return request["inputs"][0]

    def batch(self, inputs: list) -> object:
        return pd.DataFrame(inputs) if RECORDS else np.array(inputs)

    def predict(self, features: object) -> list[int]:
        return self.model.predict(features).tolist()

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict:
        return {"predictions": [output]}


class Scores(Digits):
    """Streams a row's score for each digit, one after another. LitServe batches no streams of different lengths."""

    def predict(self, row: list[float]) -> Iterator[float]:
        yield from self.model.decision_function(np.array([row]))[0].tolist()

    def encode_response(self, output):  # LitServe would take an annotation for the model of the response
        for score in output:
            yield f"data: {score}\n\n"


if __name__ == "__main__":
    api = Scores(stream=True) if os.environ["SCENARIO"] == "stream" else Digits(max_batch_size=32)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
