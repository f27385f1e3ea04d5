"""Scenarios: what is sent to which model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """One payload and one model.

    Attributes:
        records: a request is one record of 64 named columns, and the predictor gets a DataFrame;
            else one row of 64 numbers, and the predictor gets an array.
    """

    name: str
    title: str
    records: bool = False


SCENARIOS = (
    Scenario("rows", "One row of 64 numbers, a predictor that takes an array"),
    Scenario("records", "One record of 64 named columns, a predictor that takes a DataFrame", records=True),
    Scenario("sleep", "As rows, with a model that sleeps 5 ms a batch and runs one batch at a time, as a GPU does"),
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
