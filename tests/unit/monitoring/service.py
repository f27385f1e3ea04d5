"""An app of loans, and a server's recorder that goes by a clock of its own."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from prometheus_client import CollectorRegistry

from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Window, parse_seconds
from mlapp.monitoring.recorder import Recorder
from mlapp.project import Project
from mlapp.serving.inference.served_model import ServedModel, load_served_model_version

LOANS = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from mlapp import App

app = App("loans", target="paid", features=["income", "city", "ssn"])
ALARMS = []


@app.data_reader
def read(rows: int = 3000) -> pd.DataFrame:
    random = np.random.default_rng(0)
    income = random.normal(50, 10, rows)
    paid = (income + random.normal(0, 3, rows) > 50).astype(int)
    city = random.choice(["Oslo", "Rome"], rows)
    return pd.DataFrame({"income": income, "city": city, "ssn": [f"ssn-{at}" for at in range(rows)], "paid": paid})


@app.feature_transformer
def numbers(features: pd.DataFrame) -> pd.DataFrame:
    return features[["income"]]


@app.model
def build(C: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C)


@app.on_alarm
def tell(alarm) -> None:
    ALARMS.append((alarm.kind, alarm["column"], alarm.status))
"""
YAML = "monitor: {log: all, window: 10s, columns: {ssn: hash}, quality: {accuracy: -0.03}, segment: city}\n"


class Service:
    """A server's recorder, and the clock that it goes by."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from mlapp.monitoring.inspection import open_place_for_inspection

        self.project = Project.find(root)
        app = self.project.app
        self.model: ServedModel = load_served_model_version(app, self.project.store.get(app.name))
        self.settings = self.project.settings.monitor
        numbers = iter(range(10**6))
        self.registry = CollectorRegistry()
        self.recorder = Recorder(
            app.name,
            self.settings,
            open_place_for_inspection(self.project),
            MonitorMetrics(self.registry, app.name),
            lambda: b"request-%d" % next(numbers),
        )
        self.recorder.add_model(self.model)
        self.seconds = parse_seconds(self.settings.window)
        self.now = float(Window.of(time.time(), self.seconds).since - 8 * self.seconds)
        monkeypatch.setattr("mlapp.monitoring.recorder.time", SimpleNamespace(time=lambda: self.now))

    def serve(self, version: str) -> None:
        """Let another version answer."""
        app = self.project.app
        self.model = load_served_model_version(app, self.project.store.get(app.name, version))
        self.recorder.add_model(self.model)

    def predict(self, rows: pd.DataFrame, request: str, keys: Any = None) -> list[Any]:
        """Answer one request."""
        part = self.model.codec.accept_inputs(rows.to_dict("records"))
        part.id, part.keys = request.encode(), keys
        features = self.model.codec.combine_parts([part])
        predictions = self.model.list_rows(self.model.predict_features(features), part.rows)
        self.recorder.record_batch(self.model, [part], [predictions], part.rows, 0.001)
        return predictions

    def next_window(self) -> None:
        self.recorder.record_and_write()
        self.now += self.seconds
        self.recorder.record_and_write()

    def stop(self) -> None:
        """Write what is there, as the end of a server does."""
        self.now += 2 * self.seconds
        self.recorder.record_and_write()
        self.recorder.write_waiting()


def rows(count: int, shift: float = 0.0, seed: int = 1) -> pd.DataFrame:
    import numpy as np

    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "income": random.normal(50 + shift, 10, count),
            "city": random.choice(["Oslo", "Rome"], count),
            "ssn": [f"secret-{seed}-{at}" for at in range(count)],
        }
    )
