"""Schedules and task options: invalid ones are errors at declaration."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mlapp import App, Resources
from mlapp.errors import DeclarationError
from mlapp.pipeline.schedule import Schedule
from mlapp.pipeline.stage_tasks import Task


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/15 0-6,22 1 JAN-mar mon-FRI", "5 4 ? * 0", "0 0 * * *", "@daily"])
def test_a_cron_expression(cron: str) -> None:
    assert Schedule("nightly", cron=cron).description == cron


@pytest.mark.parametrize(
    ("cron", "wrong"),
    [
        ("0 3 * *", "it has 4 fields, not 5"),
        ("60 3 * * *", "'60' is not a valid minute"),
        ("0 3 * * 7", "'7' is not a valid weekday"),
        ("0 3 L * *", "'L' is not a valid day"),
        ("*/0 * * * *", r"'\*/0' is not a valid minute"),
        ("0 6-3 * * *", "'6-3' is not a valid hour"),
        ("0 3 * FOO *", "'FOO' is not a valid month"),
        ("\u00b2 3 * * *", "'\u00b2' is not a valid minute"),
    ],
)
def test_an_invalid_value_is_reported_with_its_field(cron: str, wrong: str) -> None:
    with pytest.raises(DeclarationError, match=wrong):
        Schedule("nightly", cron=cron)


def test_a_schedule_without_a_name_is_called_by_what_it_does() -> None:
    app = App("unnamed", target="y")
    assert app.schedule(cron="@daily").name == "train"
    assert app.schedule(cron="@daily", predict=True).name == "predict"
    with pytest.raises(DeclarationError, match="every='foobar' is not a timedelta"):
        app.schedule(every="foobar")


def test_a_rate_is_in_whole_minutes() -> None:
    assert Schedule("often", every=timedelta(hours=6)).description == "every 6:00:00"
    with pytest.raises(DeclarationError, match="not in whole minutes"):
        Schedule("often", every=timedelta(seconds=90))


@pytest.mark.parametrize("given", [{"memory": "lots"}, {"memory": "16GB"}, {"cpu": -1}, {"gpu": 0.5}])
def test_resources_that_kubernetes_would_not_take(given: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=f"Resources.{next(iter(given))}="):
        Resources(**given)


@pytest.mark.parametrize("given", [{"retries": -1}, {"timeout": 0}, {"secrets": "token"}])
def test_a_task_that_no_cluster_would_take(given: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=next(iter(given))):
        Task(**given)


def test_a_name_may_have_underscores_as_unionmls_have() -> None:
    assert Schedule("daily_predictions", cron="@daily", predict=True).workflow == "predict"
    with pytest.raises(DeclarationError, match="'-' and '_'"):
        Schedule("Nightly!", cron="@daily")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"every": "foobar"}, "every='foobar' is not a timedelta"),
        ({"every": 3600}, "every=3600 is not a timedelta"),
        ({"cron": 5}, "cron=5 is not a string"),
        ({"cron": "@daily", "predict": True, "promote_if": "accuracy"}, "predicts, and has promote_if"),
    ],
)
def test_a_value_of_the_wrong_kind_is_reported(given: dict[str, Any], says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        Schedule("nightly", **given)


def test_two_schedules_of_one_name_are_an_error() -> None:
    app = App("flowers")
    app.schedule("nightly", cron="0 3 * * *")
    app.schedule("nightly", cron="0 3 * * *")
    with pytest.raises(DeclarationError, match="two schedules called 'nightly'"):
        app.schedule("nightly", cron="0 4 * * *")
