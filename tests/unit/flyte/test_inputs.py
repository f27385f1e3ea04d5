"""Parameters as inputs of Flyte: what it carries itself stays what it is, all else travels as the text of `-p`."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Any, Literal

import pytest

from mlapp.errors import UsageError
from mlapp.flyte.inputs import Input, decode_inputs_by_stage, make_inputs
from mlapp.pipeline import Parameter


class Color(enum.Enum):
    RED = "red"


def one(kind: Any, default: Any = None) -> Input:
    return make_inputs([Parameter("trainer", "x", kind, default)])[0]


@pytest.mark.parametrize(
    ("kind", "default", "carried", "shown"),
    [
        (int, 3, int, 3),
        (float, 0.5, float, 0.5),
        (bool, True, bool, True),
        (str, "a", str, "a"),
        (int | None, None, int | None, None),
        (int, None, int | None, None),
        (list[str], ["a"], list[str], ["a"]),
        (dict[str, float], {"a": 1.0}, dict[str, float], {"a": 1.0}),
        (Literal["l1", "l2"], "l1", str, "l1"),
        (Color, Color.RED, str, "red"),
        (Path, Path("data"), str, "data"),
        (datetime.date, datetime.date(2026, 1, 31), str, "2026-01-31"),
        (Any, None, str, "null"),
        (Any, (100,), str, "[100]"),
        (Any, len, str, "default"),
        (int | float, 1, str, "1"),
    ],
)
def test_the_interface_shows_type_and_default(kind: Any, default: Any, carried: Any, shown: Any) -> None:
    input = one(kind, default)
    assert (input.kind, input.default) == (carried, shown)
    assert input.decode_value(input.default) is default or input.decode_value(input.default) == default


@pytest.mark.parametrize(
    ("kind", "given", "back"),
    [
        (Any, "balanced", "balanced"),
        (Any, "10", 10),
        (Literal[1, 2], "2", 2),
        (Color, "red", Color.RED),
        (int | float | None, "none", None),
        (tuple[int, ...], "1,2", (1, 2)),
        (list[Path], "a,b", [Path("a"), Path("b")]),
        (datetime.date, "2026-01-31", datetime.date(2026, 1, 31)),
    ],
)
def test_a_value_from_the_command_line_arrives(kind: Any, given: str, back: Any) -> None:
    input = one(kind, None)
    assert input.decode_value(input.encode_value(given)) == back


def test_a_type_that_flyte_cannot_carry_is_named() -> None:
    class Database:
        pass

    with pytest.raises(
        UsageError, match="'x' of trainer is a Database, which Flyte cannot pass between tasks"
    ) as raised:
        make_inputs([Parameter("trainer", "x", Database)])
    assert "give it a default" in raised.value.todo


def test_a_name_of_two_stages_or_of_a_task_needs_its_full_form() -> None:
    made = make_inputs(
        [
            Parameter("trainer", "seed", int, 0),
            Parameter("data_splitter", "seed", int, 0),
            Parameter("trainer", "model", int, 0),
            Parameter("trainer", "Gamma", int, 0),
        ]
    )
    assert [input.name for input in made] == ["trainer__seed", "data_splitter__seed", "trainer__model", "gamma"]
    bound = decode_inputs_by_stage(
        made, {"trainer__seed": 1, "data_splitter__seed": 2, "trainer__model": 3, "gamma": 4}
    )
    assert bound == {"trainer": {"seed": 1, "model": 3, "Gamma": 4}, "data_splitter": {"seed": 2}}


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ("2025-01-01", datetime.datetime(2025, 1, 1)),
        ("2025-01-01T12:00:00", datetime.datetime(2025, 1, 1, 12)),
        ("2025-01-01T12:00:00Z", datetime.datetime(2025, 1, 1, 12, tzinfo=datetime.timezone.utc)),
    ],
)
def test_a_naive_time_stays_naive(given: str, received: datetime.datetime) -> None:
    input = one(datetime.datetime)
    assert input.decode_value(input.encode_value(given)) == received
