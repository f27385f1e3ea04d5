"""LitServe with batching of what waits, its ZeroMQ queue, one API server and one inference worker, no access log."""

import os
import sys

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


if __name__ == "__main__":
    api = Digits(max_batch_size=32)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
