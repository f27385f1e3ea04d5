"""The scenarios: models, and requests to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """One payload and one model.

    Attributes:
        model: the name of the model and the app (`rows`, `records`, `sleep` or `stream`); by default, the scenario's.
        rows: number of rows per request.
        bodies: number of different bodies, which are sent in turn.
        connections: numbers of connections; one run of wrk for each.
        workers: number of processes that predict.
        folders: the folders of the peers that take part; empty for all peers.
    """

    name: str
    title: str
    model: str = ""
    rows: int = 1
    bodies: int = 1
    connections: tuple[int, ...] = (1, 32)
    workers: int = 1
    folders: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The name of the model and the app."""
        return self.model or self.name

    @property
    def streams(self) -> bool:
        """Whether an answer is a stream with a score for each digit, instead of one prediction per row."""
        return self.kind == "stream"

    @property
    def records(self) -> bool:
        """Whether rows are records of 64 named columns, and the predictor gets a DataFrame instead of an array."""
        return self.kind == "records"


SCENARIOS = (
    Scenario("rows", "One row of 64 numbers, a predictor that takes an array"),
    Scenario("records", "One record of 64 named columns, a predictor that takes a DataFrame"),
    Scenario("sleep", "As rows, with a model that sleeps 5 ms a batch and runs one batch at a time, as a GPU does"),
    Scenario("many", "1,000 rows of 64 numbers in a request", model="rows", rows=1000, connections=(4,)),
    Scenario("different", "As rows, each request with other numbers", model="rows", bodies=64, connections=(32, 256)),
    Scenario(
        *("workers", "As rows, with two workers"),
        model="rows",
        connections=(32,),
        workers=2,
        folders=("limit", "asgi", "mlapp", "mosec"),
    ),
    Scenario(
        *("stream", "As rows, the score of each of ten digits as a server-sent event"),
        folders=("limit", "asgi", "mlapp", "mosec", "litserve", "fastapi"),
    ),
)


@dataclass(frozen=True)
class Samples:
    """Rows, and the digit that the trained model predicts for each."""

    columns: list[str]
    rows: list[list[float]]
    expected: list[int]


def read_samples(path: Path) -> Samples:
    """Read the file that `benchmarks/peers/model/digits.py` has written."""
    return Samples(**json.loads(path.read_text()))
