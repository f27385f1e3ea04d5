"""Scenarios: what is sent to which model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """One payload and one model.

    Attributes:
        model: `rows`, `records`, `sleep` or `stream`: the model and the app, when they are not named as the scenario.
        rows: of a request.
        bodies: that are sent in turn, each with other numbers.
        connections: of wrk, one run for each.
        workers: processes that predict.
        folders: of the only peers that take part; all of them when empty.
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
        """Whether an answer is a stream with a score for each digit; else it is one prediction a row."""
        return self.kind == "stream"

    @property
    def records(self) -> bool:
        """Whether a row is a record of 64 named columns, and the predictor gets a DataFrame; else an array."""
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
    """Rows to ask about, and the digit that the trained model sees in each."""

    columns: list[str]
    rows: list[list[float]]
    expected: list[int]


def read_samples(path: Path) -> Samples:
    """What `benchmarks/peers/model/digits.py` wrote."""
    return Samples(**json.loads(path.read_text()))
