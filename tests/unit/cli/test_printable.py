"""Names and values from data reach a terminal as text: they can contain what moves its cursor or turns its lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from mlapp.printable_text import PrintableFormatter, make_printable, make_printable_json

EVIL = "\x1b[2J\x9b\u202e\u2028"
APP = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlapp import App

EVIL = "\\x1b[2J\\x9b\\u202e\\u2028"
app = App("evil", target=f"t{EVIL}")


@app.data_reader
def read(name: str = EVIL) -> pd.DataFrame:
    return pd.DataFrame({f"a{EVIL}": range(60), f"t{EVIL}": [f"no{EVIL}", f"yes{EVIL}"] * 30})


app.model(LogisticRegression)


@app.predictor
def predict(model: LogisticRegression, features: pd.DataFrame) -> list[str]:
    if features.iloc[0, 0] == 77:
        raise ValueError(f"first{EVIL}\\nsecond\\n\\nthird")
    return model.predict(features).tolist()


@app.evaluator
def evaluate(model: LogisticRegression, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
    return {f"m{EVIL}": 1.0}
"""


def test_what_controls_a_terminal_is_written_out() -> None:
    assert make_printable(f"a{EVIL}\ud800") == r"a\x1b[2J\x9b\u202e\u2028\ud800"
    assert make_printable("Zoë, 東京, 👩‍🔬, עברית\ta\nb") == "Zoë, 東京, 👩‍🔬, עברית\ta\nb"
    text = json.dumps([EVIL, "\U000e0041"], ensure_ascii=False)
    assert json.loads(make_printable_json(text)) == [EVIL, "\U000e0041"]
    assert make_printable_json(text).isascii()


def test_a_log_record_is_printable() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 1, "%s", (EVIL,), None)
    assert PrintableFormatter("%(message)s").format(record).isascii()


def test_no_command_prints_control_characters(mlapp: Callable, project: Callable) -> None:
    root = project(APP)
    (root / "one.json").write_text(json.dumps([{f"a{EVIL}": 77}]))
    (root / "two.json").write_text(json.dumps([{f"a{EVIL}": 1}] * 2))
    (root / "bad.json").write_text(json.dumps([{f"a{EVIL}": EVIL}]))
    for arguments, code in (
        (["train"], 0),
        (["train", "--json"], 0),
        (["data", "show"], 0),
        (["models", "list"], 0),
        (["models", "show"], 0),
        (["models", "show", EVIL], 2),
        (["models", "compare", "1", "2", "--markdown"], 0),
        (["predict", "--features", "two.json"], 0),
        (["predict", "--features", "bad.json"], 1),
        (["train", "-p", f"x{EVIL}=1"], 2),
    ):
        ran = mlapp(*arguments)
        assert ran.code == code, (arguments, ran)
        assert not set(EVIL[0] + EVIL[4:]) & set(ran.out + ran.err), (arguments, ran)
    ran = mlapp("predict", "--features", "one.json")
    assert (ran.code, len(ran.err.splitlines())) == (1, 2), ran.err
    assert r"first\x1b[2J\x9b\u202e second third" in ran.err
