"""Functions of the app that fail while windows are evaluated and closed."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlapp.monitoring import alerts, evaluation, inspection
from mlapp.monitoring.closing import close_windows
from mlapp.monitoring.inspection import inspect_windows
from tests.unit.monitoring.service import Service, rows

pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")
HERE = Path(__file__).name


def block(*arguments: Any) -> None:
    """Wait for something that never happens, and repeat failed attempts."""
    while True:
        try:
            threading.Event().wait()
        except Exception:
            continue


def yield_and_fail() -> Iterator[dict[str, Any]]:
    yield {"id": "r#0", "truth": 1}
    raise ConnectionError("the database is gone")


async def read_later() -> None:
    """A coroutine: nobody awaits it."""


READERS: dict[str, tuple[Callable[[], Any], str]] = {
    "blocks": (block, "raised TimeoutError: it did not return within 0.2 seconds"),
    "none": (lambda: None, "The data is not a table: NoneType."),
    "number": (lambda: 3, "The data is not a table: int."),
    "text": (lambda: "r#0,1", "is not JSON"),
    "coroutine": (lambda: read_later().close(), "The data is not a table: NoneType."),
    "wrong columns": (lambda: pd.DataFrame({"ident": ["r#0"], "label": [1]}), "truth is missing"),
    "no id": (lambda: pd.DataFrame({"truth": [1]}), "id is missing"),
    "raises": (lambda: [][0], "raised IndexError: list index out of range"),
    "exits": (lambda: sys.exit(3), "raised SystemExit: 3"),
    "generator": (yield_and_fail, "raised ConnectionError: the database is gone"),
    "wrong type": (lambda: pd.DataFrame({"id": ["r#0"], "truth": ["yes"]}), "truth is not of type integer"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_truth_reader_that_fails_is_named_with_its_line_and_closes_every_window(
    name: str, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, what = READERS[name]
    monkeypatch.setattr(inspection, "PATIENCE", 0.2)
    service.predict(rows(30), "r")
    service.stop()
    service.project.app.truth_reader(read)
    assert close_windows(service.project).windows == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("Truths are missing: truth_reader '")
    assert f" in {HERE}:" in warning
    assert what in warning
    assert "data_loader" not in warning


TRUTHS: dict[str, tuple[Callable[[list[int]], Any], int, float]] = {
    "each twice": (lambda good: {"id": [f"r#{at}" for at in range(30)] * 2, "truth": [9] * 30 + good}, 30, 1.0),
    "unknown ids": (lambda good: {"id": [f"x#{at}" for at in range(30)] + ["r#0"], "truth": [*good, good[0]]}, 1, 1.0),
    "missing truths": (
        lambda good: {"id": [f"r#{at}" for at in range(30)], "truth": [*good[:3], *[math.nan] * 27]},
        3,
        1.0,
    ),
    "none yet": (lambda good: [], 0, math.nan),
    "a generator": (lambda good: ({"id": f"r#{at}", "truth": truth} for at, truth in enumerate(good)), 30, 1.0),
    "a generator without items": (lambda good: iter(()), 0, math.nan),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_unusual_truths_of_a_truth_reader(name: str, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    make, truths, accuracy = TRUTHS[name]
    predictions = service.predict(rows(30), "r")
    service.stop()
    service.project.app.truth_reader(
        lambda: pd.DataFrame(made) if isinstance(made := make(predictions), dict) else made
    )
    (report,) = inspect_windows(service.project)
    assert report.truths == truths
    assert report.metrics.get("accuracy", math.nan) == pytest.approx(accuracy, nan_ok=True)
    assert not caplog.records


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (block, "raised TimeoutError: it did not return within 0.2 seconds"),
        (lambda alarm: alarm.nothing, "raised AttributeError: nothing"),
        (lambda alarm: sys.exit(3), "raised SystemExit: 3"),
    ],
    ids=["blocks", "raises", "exits"],
)
def test_an_on_alarm_that_fails_is_named_with_its_line_and_delays_no_other_alarm(
    function: Callable[..., Any],
    what: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(alerts, "ON_ALARM_PATIENCE", 0.2)
    for window in range(3):
        service.predict(rows(400, 30, seed=window).assign(city="Paris"), f"r{window}")
        service.next_window()
    service.stop()
    service.project.app.stages.pop("on_alarm")
    service.project.app.on_alarm(function)
    sent = close_windows(service.project).sent
    assert len(sent) >= 3
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == len(sent)
    for error in errors:
        assert error.startswith("on_alarm '")
        assert f" in {HERE}:" in error
        assert what in error
        assert "\n" not in error


@pytest.mark.parametrize(
    ("evaluate", "what"),
    [
        (lambda model, features, target: block(), "raised TimeoutError: it did not return within 0.2 seconds"),
        (lambda model, features, target: sys.exit(3), "raised SystemExit: 3"),
        (lambda model, features, target: None, "returned"),
    ],
    ids=["blocks", "exits", "none"],
)
def test_an_evaluator_that_fails_on_live_data_leaves_the_metrics_of_the_logged_predictions(
    evaluate: Callable[..., Any],
    what: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(evaluation, "PATIENCE", 0.2)
    monkeypatch.setattr(evaluation.ColumnPrivacy, "has_rules_for", lambda self, names: False)
    predictions = service.predict(rows(30), "r")
    service.stop()
    app = service.project.app
    app.evaluator(evaluate)
    app.truth_reader(lambda: pd.DataFrame({"id": [f"r#{at}" for at in range(30)], "truth": predictions}))
    (report,) = inspect_windows(service.project)
    assert (report.truths, report.metrics["accuracy"]) == (30, 1.0)
    warnings = {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING}
    assert warnings
    for warning in warnings:
        assert f" in {HERE}:" in warning
        assert what in warning
