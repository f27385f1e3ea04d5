"""mosec with one worker and dynamic batching, msgspec instead of the json module: as its documentation advises.

MAX_BATCH and MAX_WAIT (milliseconds) are searched by hand: 32 and 1 gave the most answers with this model.
"""

import os

import joblib
import msgspec
import numpy as np
import pandas as pd
from mosec import Server, SSEWorker, ValidationError, Worker

RECORDS = os.environ["SCENARIO"] == "records"


class Rows(msgspec.Struct):
    inputs: list[dict[str, float]] if RECORDS else list[list[float]]


class Digits(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = joblib.load(os.environ["MODEL"])
        self.decode = msgspec.json.Decoder(Rows).decode
        self.encode = msgspec.json.Encoder().encode

    def deserialize(self, data: bytes) -> list:
        try:
            return self.decode(data).inputs
        except msgspec.MsgspecError as error:
            raise ValidationError(str(error)) from error

    def serialize(self, data: list) -> bytes:
        return self.encode({"predictions": data})

    def forward(self, data: list) -> list:
        rows = [row for part in data for row in part]
        predictions = self.model.predict(pd.DataFrame(rows) if RECORDS else np.array(rows)).tolist()
        answers, at = [], 0
        for part in data:
            answers.append(predictions[at : at + len(part)])
            at += len(part)
        return answers


class Scores(Digits, SSEWorker):
    """Streams a row's score for each digit, one after another."""

    def forward(self, data: list) -> list:
        predictions = self.model.decision_function(np.array([part[0] for part in data])).tolist()
        for digit in range(len(predictions[0])):
            for at, scores in enumerate(predictions):
                self.send_stream_event(str(scores[digit]), index=at)
        return data


if __name__ == "__main__":
    server = Server()
    batch, wait = int(os.environ.get("MAX_BATCH", "32")), int(os.environ.get("MAX_WAIT", "1"))
    worker = Scores if os.environ["SCENARIO"] == "stream" else Digits
    server.append_worker(
        worker, num=int(os.environ["WORKERS"]), max_batch_size=batch, max_wait_time=wait, route="/predict"
    )
    server.run()
