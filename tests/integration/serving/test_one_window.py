"""One window whose numbers are counted by hand: every place that shows them shows the same ones."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.serving.conftest import PATIENCE, Server, run, until

APP = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("signs", target="positive", features=["amount", "city"])
app.model(LogisticRegression)


@app.data_reader
def read() -> pd.DataFrame:
    amount = np.linspace(-10, 10, 200)
    city = [None, *["Oslo", "Rome"] * 4, "Oslo"] * 20
    return pd.DataFrame({"amount": amount, "city": city, "positive": (amount > 0).astype(int)})


@app.feature_transformer
def take_amount(features: pd.DataFrame) -> pd.DataFrame:
    return features[["amount"]]


@app.evaluator
def measure(model, features, target) -> dict[str, float]:
    return {"accuracy": float(np.mean(model.predict(features) == target))}
"""
YAML = "monitor: {log: all, window: 300d, run: false, segment: city}\n"

ROWS = [
    *[{"amount": 5.0, "city": "Oslo"}] * 24,
    *[{"amount": -5.0, "city": "Rome"}] * 30,
    *[{"amount": 5.0, "city": "Paris"}] * 4,  # a city that training never saw
    *[{"amount": -5.0, "city": None}] * 3,  # a missing value
    *[{"amount": 1000.0, "city": "Oslo"}] * 2,  # out of the range of training
]
PREDICTIONS = {1: 24 + 4 + 2, 0: 30 + 3}
REFUSED: list[Any] = [[{"amount": "x", "city": "Oslo"}], [{"city": "Oslo"}, {"city": "Rome"}]]
TRUTHS = [
    *[{"id": f"a#{at}", "truth": int(at >= 6)} for at in range(24)],  # Oslo, 6 of them wrong
    *[{"id": f"a#{at}", "truth": int(at < 27)} for at in range(24, 54)],  # Rome, 3 of them wrong
    *[{"id": f"a#{at}", "truth": 1} for at in (61, 62)],  # Oslo
]
OSLO, ROME, ALL = 20 / 26, 27 / 30, 47 / 56


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[Server]:
    """A server that has answered 63 rows, refused 3, and received 56 truths."""
    project = tmp_path_factory.mktemp("signs")
    (project / "app.py").write_text(APP)
    (project / "mlapp.yaml").write_text(YAML)
    trained = run(project, "train")
    assert trained.returncode == 0, trained.stderr
    with serve(project) as server, httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        answer = client.post("/predict", json={"inputs": ROWS}, headers={"X-Request-ID": "a"}).json()
        assert {label: answer["predictions"].count(label) for label in (0, 1)} == PREDICTIONS
        for inputs in REFUSED:
            assert client.post("/predict", json={"inputs": inputs}).status_code == 422
        assert client.post("/feedback", json=TRUTHS).json() == {"accepted": 56}
        until(lambda: [(window["rows"], window["refused"]) for window in read_windows(server)] == [(63, 3)])
        until(lambda: server.metric("mlapp_log_rows_total") == 63)
        yield server


def read_windows(server: Server) -> list[dict[str, Any]]:
    windows: list[dict[str, Any]] = json.loads(run(server.project, "monitor", "--json").stdout)["windows"]
    return windows


def read_cells(page: str) -> list[list[str]]:
    """The cells of the table of windows."""
    return [re.split("<t[hd]>", row)[1:] for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page)]


def read_features(page: str) -> dict[str, str]:
    """Feature → its facts."""
    cards = re.findall(r'<figure class="feature[^>]*><figcaption>(.*?) <span class=muted>(.*?)</span>', page)
    return {name: html.unescape(facts) for name, facts in cards}


def test_the_numbers_in_json_and_text(signs: Server) -> None:
    (window,) = read_windows(signs)
    assert (window["rows"], window["refused"], window["truths"], window["state"]) == (63, 3, 56, "quiet")
    assert window["metrics"] == {"accuracy": pytest.approx(ALL, abs=1e-6)}
    segments = {name: (metric["value"], metric["rows"]) for name, metric in window["quality"].items()}
    assert segments == {
        "accuracy": (pytest.approx(ALL, abs=1e-6), 56),
        "accuracy[city=Oslo]": (pytest.approx(OSLO, abs=1e-6), 26),
        "accuracy[city=Rome]": (pytest.approx(ROME, abs=1e-6), 30),
    }
    text = run(signs.project, "monitor").stdout
    assert re.search(r"1 +63 +3 +56 +quiet \(open\) +accuracy 0\.839$", text, re.MULTILINE)
    assert "city=Oslo: accuracy 0.769 on 26 rows" in text
    assert "city=Rome: accuracy 0.9 on 30 rows" in text


def test_the_numbers_in_prometheus(signs: Server) -> None:
    assert signs.metric("mlapp_monitored_rows_total", version="1") == 63
    assert signs.metric("mlapp_monitor_dropped_rows_total") == 0
    problems = {
        (feature, kind): signs.metric("mlapp_feature_problems_total", feature=feature, kind=kind)
        for feature in ("amount", "city")
        for kind in ("missing", "new_value", "out_of_range", "refused")
    }
    assert {key: rows for key, rows in problems.items() if rows} == {
        ("city", "missing"): 3,
        ("city", "new_value"): 4,
        ("amount", "out_of_range"): 2,
        ("amount", "refused"): 3,
    }
    predicted = {
        label: signs.metric("mlapp_feature_rows_total", feature="prediction", value=str(label)) for label in (0, 1)
    }
    assert predicted == PREDICTIONS
    assert signs.metric("mlapp_feature_rows_total", feature="amount", le="+Inf") == 63
    (window,) = read_windows(signs)
    for name, distance in window["distances"].items():
        assert signs.metric("mlapp_feature_drift_distance", feature=name) == pytest.approx(distance, abs=1e-6)
    assert set(window["distances"]) == {"amount", "city", "prediction"}


def test_the_numbers_in_sql(signs: Server) -> None:
    def query(sql: str) -> Any:
        (row,) = json.loads(run(signs.project, "monitor", "sql", sql, "--json").stdout)
        return row

    assert query(
        "SELECT count(*) AS rows, sum(weight) AS weights, count(*) FILTER (city IS NULL) AS missing, "
        "count(*) FILTER (city = 'Paris') AS new, count(*) FILTER (amount > 10) AS beyond, "
        "count(*) FILTER (prediction = 1) AS positive FROM log"
    ) == {"rows": 63, "weights": 63, "missing": 3, "new": 4, "beyond": 2, "positive": PREDICTIONS[1]}
    wrong = "prediction != truth::INTEGER"
    joined = 'log JOIN truth USING (request, "row")'
    assert query(f"SELECT count(*) AS truths, count(*) FILTER ({wrong}) AS wrong FROM {joined}") == {
        "truths": 56,
        "wrong": 9,
    }
    assert query(f"SELECT count(*) FILTER ({wrong}) AS wrong FROM {joined} WHERE city = 'Oslo'") == {"wrong": 6}


def test_the_numbers_in_the_report_and_on_the_live_page(signs: Server) -> None:
    (window,) = read_windows(signs)
    written = run(signs.project, "monitor", "report", "--html", "report.html")
    assert written.returncode == 0, written.stderr
    report = (signs.project / "report.html").read_text()
    live = httpx.get(f"{signs.url}/monitor", timeout=PATIENCE).text
    (head, cells), (live_head, live_cells) = read_cells(report), read_cells(live)
    quality = "accuracy 0.839; city=Rome: accuracy 0.9 on 30 rows; city=Oslo: accuracy 0.769 on 26 rows"
    assert head == ["since (UTC)", "version", "rows", "refused", "truths", "state", "quality", "alarms"]
    assert cells[1:] == ["1", "63", "3", "56", "quiet, open", quality, ""]
    assert live_head == [name for name in head if name not in ("truths", "quality")]
    assert live_cells[1:] == ["1", "63", "3", "quiet, open", ""]
    assert "For truths and quality, run mlapp monitor." in live
    distances = {name: f"distance {value:.3f}" for name, value in window["distances"].items()}
    for page in (report, live):
        assert "<h2>Nothing is wrong</h2>" in page
        assert "<li>amount: 3</li>" in page
        assert read_features(page) == {
            "prediction": distances["prediction"],
            "amount": f"{distances['amount']}, out of range {2 / 63:.1%}",
            "city": f"{distances['city']}, missing {3 / 63:.1%}, new values {4 / 63:.1%}",
        }
