"""From predictions to `mlapp monitor`, without a server."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from mlapp.config import Monitor
from mlapp.errors import InputError, Problem
from mlapp.monitoring import closing, history, inspection
from mlapp.monitoring.alarms import find_window_alarms
from mlapp.monitoring.canary_quality import CanaryQuality
from mlapp.monitoring.closing import close_windows
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.evaluation import Evaluation
from mlapp.monitoring.history import read_history_counts
from mlapp.monitoring.inspection import WARMING, inspect_windows, open_place_for_inspection
from mlapp.monitoring.place import Window
from mlapp.monitoring.segments import encode_segment_table
from mlapp.monitoring.windows import Quality
from mlapp.project import Project
from mlapp.serving.monitoring import render_monitoring_report
from mlapp.serving.process.monitoring import _Closer
from tests.unit.monitoring.service import LOANS, Service, rows

WIDE = """
import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier

from mlapp import App

app = App("wide", target="y")
app.model(DummyClassifier)


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame(np.zeros((40, 513)), columns=[f"f{at}" for at in range(513)]).assign(y=[0, 1] * 20)
"""

pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")
parquet = pytest.importorskip("pyarrow.parquet")


def windows(mlapp: Callable[..., Any], *arguments: str) -> list[dict[str, Any]]:
    result = mlapp("monitor", "--json", *arguments)
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["app"] == "loans"
    return [window for window in content["windows"] if window["state"] != "empty"]


def test_a_shift_is_an_alarm_in_the_second_window_and_is_reported_once(
    mlapp: Callable[..., Any], service: Service
) -> None:
    for number, shift in enumerate((0, 0, 8, 8, 8, 0, 0)):
        service.predict(rows(400, shift, number), f"r{number}")
        service.next_window()
    service.stop()
    reports = windows(mlapp)
    assert [window["state"] for window in reports] == ["quiet", "quiet", "quiet", "alarm", "alarm", "alarm", "quiet"]
    assert all(window["rows"] == 400 and window["version"] == "1" for window in reports)
    alarm = next(alarm for alarm in reports[3]["alarms"] if alarm["column"] == "income")
    assert alarm["kind"] == "drift"
    assert alarm["value"] > alarm["threshold"] == 0.05
    assert "income" in alarm["text"]
    assert "income is distributed differently" in mlapp("monitor").out

    for _ in range(2):  # however many run it
        assert mlapp("monitor", "run").code == 0
    alarms = service.project.app.stage("on_alarm").function.__globals__["ALARMS"]  # type: ignore[union-attr]
    assert sorted(alarms) == [
        ("drift", "income", "firing"),
        ("drift", "income", "resolved"),
        ("drift", "prediction", "firing"),
        ("drift", "prediction", "resolved"),
    ]


def test_check_is_for_scripts(mlapp: Callable[..., Any], service: Service) -> None:
    assert mlapp("monitor", "--check").code == 0
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    assert mlapp("monitor", "--check").code == 1


def test_truth_by_id_and_by_keys_is_evaluated_by_the_app_s_own_evaluator(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path
) -> None:
    first = service.predict(rows(200, seed=1), "known")
    keys = [{"loan": at, "branch": "north"} for at in range(200)]
    second = service.predict(rows(200, seed=2), "keyed", keys)
    service.stop()
    truths = pd.DataFrame({"id": [f"known#{at}" for at in range(200)], "truth": first})
    truths.loc[:9, "truth"] = 1 - truths["truth"]
    truths.loc[:2, "truth"] = 7  # a class that training never saw
    truths.to_csv(tmp_path / "ids.csv", index=False)
    pd.DataFrame({"loan": range(200), "truth": second}).to_parquet(tmp_path / "keys.parquet")
    (tmp_path / "unknown.json").write_text('[{"id": "nobody", "truth": 1}, {"keys": {"loan": "x"}, "truth": 0}]')
    output = mlapp("feedback", str(tmp_path / "ids.csv"), "--json")
    assert json.loads(output.out) == {"accepted": 200, "unknown_classes": {"7": 3}}
    assert "3 truths have classes that training never saw: 7 (3)." in output.err
    for name, count in {"keys.parquet": 200, "unknown.json": 2}.items():
        assert json.loads(mlapp("feedback", str(tmp_path / name), "--json").out) == {"accepted": count}
    (window,) = windows(mlapp)
    assert window["truths"] == 400
    assert window["metrics"]["accuracy"] == pytest.approx(390 / 400)
    assert window["unknown_classes"] == {"7": 3}
    assert "3 truths have classes that training never saw" in mlapp("monitor").out
    assert {"accuracy[city=Oslo]", "accuracy[city=Rome]"} <= set(window["quality"])


def test_a_row_with_a_truth_by_id_and_one_by_key_counts_once_with_the_last(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path
) -> None:
    predictions = service.predict(rows(200), "r", {"batch": 1})
    service.stop()
    by_key = [{"keys": {"batch": 1}, "truth": 0}]
    by_id = [{"id": f"r#{at}", "truth": value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps([*by_key, *by_id]))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    (window,) = windows(mlapp)
    assert (window["truths"], window["metrics"]["accuracy"]) == (200, 1.0)


def test_quality_below_what_is_allowed_is_an_alarm(mlapp: Callable[..., Any], service: Service, tmp_path: Path) -> None:
    predictions = service.predict(rows(500), "wrong")
    service.stop()
    truths = [{"id": f"wrong#{at}", "truth": 1 - value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    (window,) = windows(mlapp)
    (alarm,) = window["alarms"]
    assert (alarm["kind"], alarm["column"], window["state"]) == ("quality", "accuracy", "alarm")
    corrected = [{"id": f"wrong#{at}", "truth": value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps(corrected))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    (window,) = windows(mlapp)
    assert (window["state"], window["metrics"]["accuracy"]) == ("quiet", 1.0)


def test_an_alarm_of_quality_is_on_the_live_page_once_a_run_has_found_it(
    mlapp: Callable[..., Any], service: Service
) -> None:
    predictions = service.predict(rows(500), "wrong")
    service.stop()
    truths = [{"id": f"wrong#{at}", "truth": 1 - value} for at, value in enumerate(predictions)]
    Path("truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", "truths.json").code == 0
    (event,) = close_windows(service.project).sent
    page = render_monitoring_report("loans", service.recorder.place, service.recorder).decode()
    assert "<h2>Something is wrong</h2>" in page
    assert f"<li>{event.text}</li>" in page


def test_a_canary_is_compared_by_the_truths_of_its_own_rows(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path
) -> None:
    project, truths = service.project, []
    assert mlapp("train").code == 0
    compare = CanaryQuality(project, service.now - 1)
    for version in ("1", "2"):
        service.serve(version)
        predictions = service.predict(rows(500), version)
        wrong = 100 if version == "2" else 20
        truths += [
            {"id": f"{version}#{at}", "truth": 1 - value if at < wrong else value}
            for at, value in enumerate(predictions)
        ]
    service.stop()
    assert compare("1", "2") is None  # no truth is known yet
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    compare = CanaryQuality(project, service.now - 4 * service.seconds)
    assert compare("1", "2") == "its accuracy is 0.800 on 500 rows whose truth is known, against 0.960 on 500"
    assert CanaryQuality(project, service.now - 4 * service.seconds)("2", "1") is None
    assert compare("1", "1") is None


def test_truths_of_the_wrong_type_are_refused(mlapp: Callable[..., Any], service: Service, tmp_path: Path) -> None:
    wrong = ({"id": "a", "truth": "yes"}, {"id": "a"}, {"truth": 1, "id": "#"}, {"id": "a#3000000000", "truth": 1})
    for number, text in enumerate(json.dumps([entry]) for entry in wrong):
        (tmp_path / f"{number}.json").write_text(text)
        result = mlapp("feedback", str(tmp_path / f"{number}.json"))
        assert result.code == 1, result.out
        assert len(result.err.strip().splitlines()) == 2
        assert f"{number}.json: row 0: " in result.err
    result = mlapp("feedback", "none.csv")
    assert (result.code, result.err.splitlines()[0]) == (2, "Error: There is no file 'none.csv'.")


@pytest.mark.parametrize(
    ("header", "missing"), [("id,label", "truth is"), ("id", "truth is"), ("truth", "id is"), ("label", "truth is")]
)
def test_a_missing_column_of_truths_is_named(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path, header: str, missing: str
) -> None:
    (tmp_path / "truths.csv").write_text(f"{header}\n{header}\n")
    result = mlapp("feedback", str(tmp_path / "truths.csv"))
    assert result.code == 1
    assert f"{missing} missing; the columns are {', '.join(header.split(','))}" in result.err


@pytest.mark.parametrize("settings", ["{window: 10s}", "{log: off}", "{log: 'off'}"])
def test_truths_without_a_log_are_accepted_with_a_warning(
    mlapp: Callable[..., Any], service: Service, project: Any, tmp_path: Path, settings: str
) -> None:
    project(LOANS, mlapp__yaml=f"monitor: {settings}\n")
    (tmp_path / "truths.json").write_text('[{"id": "a", "truth": 1}]')
    result = mlapp("feedback", str(tmp_path / "truths.json"), "--json")
    assert json.loads(result.out) == {"accepted": 1}
    assert "monitor.log is off" in result.err


def test_without_truths_there_is_an_estimate(mlapp: Callable[..., Any], service: Service, project: Any) -> None:
    project(LOANS, mlapp__yaml="monitor: {log: all, window: 10s}\n")
    service.predict(rows(1000), "r")
    service.stop()
    (window,) = windows(mlapp)
    assert window["metrics"] == {}
    estimate = window["quality"]["accuracy"]
    assert estimate["estimated"]
    assert estimate["value"] == pytest.approx(estimate["trained"], abs=0.04)


def test_a_person_s_rows_are_forgotten(mlapp: Callable[..., Any], service: Service, tmp_path: Path) -> None:
    keys = [{"customer": at // 2} for at in range(400)]
    service.predict(rows(400), "r", keys)
    service.stop()
    pd.DataFrame({"customer": [7, 8], "truth": [1, 1]}).to_csv(tmp_path / "truth.csv", index=False)
    assert mlapp("feedback", str(tmp_path / "truth.csv")).code == 0
    assert "2 rows" in mlapp("monitor", "forget", "--key", "customer=7", "--yes").out
    sql = "SELECT (SELECT count(*) FROM log) AS l, (SELECT count(*) FROM truth) AS t"
    assert json.loads(mlapp("monitor", "sql", sql, "--json").out) == [{"l": 398, "t": 1}]
    assert windows(mlapp)[0]["truths"] == 2
    assert "398 rows" in mlapp("monitor", "forget", "--key", "id=r", "--yes").out
    assert json.loads(mlapp("monitor", "sql", sql, "--json").out)[0]["l"] == 0


def test_a_query_reads_the_log_and_no_other_file(mlapp: Callable[..., Any], service: Service, tmp_path: Path) -> None:
    service.predict(rows(3), "r")
    service.stop()
    (tmp_path / "secret.csv").write_text("password\n123\n")
    (segment,) = Path(".mlapp").rglob("log/**/*.parquet")
    for query in (
        f"SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        f"SELECT * FROM '{tmp_path}/secret.csv'",
        f"COPY log TO '{tmp_path}/copy.csv'",
        f"ATTACH '{tmp_path}/other.db'",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "LOAD httpfs",
        f"SET enable_external_access=true; SELECT * FROM read_csv('{tmp_path}/secret.csv')",
        "",
        "COPY (SELECT 123) TO '{segment}' (USE_TMP_FILE false)",
        f"SET allowed_paths=['{tmp_path}/secret.csv']; SELECT * FROM read_csv('{tmp_path}/secret.csv')",
    ):
        refused = mlapp("monitor", "sql", query.replace("{segment}", str(segment)))
        assert (refused.code, "123" in refused.out) == (1, False), (query, refused)
        assert "mlapp failed" not in refused.err
        assert len(refused.err.splitlines()) == 2, refused.err
    assert not (tmp_path / "copy.csv").exists()
    shown = mlapp("monitor", "sql", "SELECT count(*) AS n, chr(27) || '[2J' || chr(10) || 'x' AS city FROM log").out
    assert shown.splitlines()[1] == "3  \\x1b[2J\\nx", "a client's text gives orders to the terminal"


def test_refused_rows_are_counted_by_field(mlapp: Callable[..., Any], service: Service) -> None:
    for window in range(2):
        service.predict(rows(400, seed=window), f"r{window}")
        for row in range(40):
            unknown = [Problem(f"column 'x{at}' is unknown", field=f"x{at}", row=row) for at in range(12)]
            service.recorder.record_refusal(
                "1", InputError([*unknown, Problem("income is missing", field="income", row=row)])
            )  # a client is told ten of these
        service.next_window()
    service.stop()
    reports = windows(mlapp)
    assert [window["refused"] for window in reports] == [40, 40]
    alarms = [(alarm["kind"], alarm["column"], round(alarm["value"], 3)) for alarm in reports[1]["alarms"]]
    assert alarms == [("refused", "income", 0.091), ("refused", "other", 0.091)]


def test_the_report_is_one_page_that_needs_no_network(mlapp: Callable[..., Any], service: Service) -> None:
    service.predict(rows(400, 8), "r")
    service.stop()
    assert mlapp("monitor", "report", "--html", "report.html").code == 0
    page = Path("report.html").read_text()
    assert "income" in page
    assert "<svg" in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "src=" not in page


def test_a_column_without_values_in_training_is_part_of_the_report(
    mlapp: Callable[..., Any], project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = LOANS.replace('"ssn"]', '"ssn", "empty"]').replace('"paid": paid}', '"paid": paid, "empty": np.nan}')
    root = project(code, mlapp__yaml="monitor: {log: all, window: 10s}\n")
    assert mlapp("train").code == 0
    service = Service(root, monkeypatch)
    service.predict(rows(400).assign(empty=None), "r")
    service.stop()
    assert mlapp("monitor", "report", "--html", "report.html").code == 0
    assert "no values in training" in (root / "report.html").read_text()


def test_versions_are_compared_on_live_data(mlapp: Callable[..., Any], service: Service, project: Any) -> None:
    project(LOANS, mlapp__yaml="monitor: {log: all, window: 10s}\n")
    service.predict(rows(300), "r")
    service.stop()
    assert mlapp("train", "-p", "C=0.0001").code == 0
    result = mlapp("models", "compare", "1", "2", "--on", "live:7d", "--json")
    assert result.code == 0, result.err
    content = json.loads(result.out)
    assert content["rows"] == 300
    assert [side["version"] for side in content["sides"]] == ["1", "2"]
    assert 0.5 < content["agreement"] <= 1
    assert "All 300 predictions match" in mlapp("monitor", "skew", "--version", "1").out


@pytest.mark.parametrize("only_other_rows", [False, True])
def test_logged_rows_of_a_version_with_other_features_are_named_in_a_comparison(
    only_other_rows: bool, mlapp: Callable[..., Any], service: Service, project: Any
) -> None:
    root = project(LOANS, mlapp__yaml="monitor: {log: all, window: 10s}\n")
    service.predict(rows(30), "r")
    service.stop()
    (file,) = (root / ".mlapp/store/loans/monitor/log/1").rglob("*.parquet")
    table = parquet.ParquetFile(file).read()
    other = table.rename_columns(["district" if name == "city" else name for name in table.column_names])
    (file if only_other_rows else file.with_name(f"other-{file.name}")).write_bytes(encode_segment_table(other))
    ran = mlapp("models", "compare", "1", "1", "--on", "live:7d")
    assert (ran.code, len(ran.err.splitlines())) == (1, 2)
    assert "Version 1 cannot predict every logged row: " in ran.err
    assert "'city'" in ran.err
    assert "--on live:1d" in ran.err


def test_what_retraining_made_is_not_latest_until_it_is_promoted(
    mlapp: Callable[..., Any], service: Service, project: Any, tmp_path: Path
) -> None:
    retrain = "retrain: {on: quality, run: local, min_labels: 100}"
    project(LOANS, mlapp__yaml=f"monitor: {{log: all, window: 10s, quality: {{accuracy: -0.03}}, {retrain}}}\n")
    predictions = service.predict(rows(300), "r")
    service.stop()
    truths = [{"id": f"r#{at}", "truth": 1 - value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    mlapp("feedback", str(tmp_path / "truths.json"))
    for _ in range(2):  # at most once a day
        assert mlapp("monitor", "run").code == 0
    store = service.project.store
    assert store.list_numbers("loans") == [1, 2]
    assert store.aliases("loans") == {"challenger": 2}
    assert store.resolve("loans") == 1
    assert mlapp("models", "promote", "challenger", "production").code == 0
    assert store.resolve("loans") == 2


def test_a_period_and_keys_that_contradict_themselves(mlapp: Callable[..., Any], service: Service) -> None:
    turned = mlapp("monitor", "--since", "1h", "--until", "2h")
    assert (turned.code, "The start of the period is not before its end." in turned.err) == (2, True)
    twice = mlapp("monitor", "forget", "--key", "city=Oslo", "--key", "city=Rome", "--yes")
    assert (twice.code, "--key city is given twice." in twice.err) == (2, True)


def test_nothing_was_predicted(mlapp: Callable[..., Any], service: Service) -> None:
    assert windows(mlapp) == []
    empty = mlapp("monitor")
    assert (empty.out, "use --since" in empty.err) == ("There were no predictions in this period.\n", True)
    assert mlapp("monitor", "run").code == 0
    assert mlapp("monitor", "report", "--html", "report.html").code == 0


def test_a_version_without_a_baseline_is_counted(mlapp: Callable[..., Any], service: Service) -> None:
    (service.project.store.get("loans").files / "baseline.json").unlink()
    service.predict(rows(400, 8), "r")
    service.stop()
    result = mlapp("monitor", "--json")
    assert json.loads(result.out)["windows"][0]["rows"] == 400


def test_two_runs_at_once_tell_each_alarm_once(mlapp: Callable[..., Any], service: Service) -> None:
    for number, shift in enumerate((8, 8, 0, 0)):
        service.predict(rows(400, shift, number), f"r{number}")
        service.next_window()
    service.stop()
    assert service.project.app is not None  # imported once, before the threads
    with ThreadPoolExecutor(2) as threads:
        closed = list(threads.map(close_windows, [service.project] * 2))
    sent = [(event["column"], event["status"]) for one in closed for event in one.sent]
    assert sorted(sent) == sorted(
        (column, status) for column in ("income", "prediction") for status in ("firing", "resolved")
    )


def test_the_server_logs_what_its_monitor_run_reports(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    output = "loans: 1 windows closed.\nERROR: An alarm was not sent: http://hook answers 500.\n"
    ran = CompletedProcess([], 0, "", output)
    monkeypatch.setattr("mlapp.serving.process.monitoring.subprocess.run", lambda *arguments, **options: ran)
    monkeypatch.setattr("mlapp.serving.process.monitoring.GRACE", 0.0)
    place = open_place_for_inspection(service.project)
    _Closer(service.project, place, None)._close_window("0-10")
    output = [record.getMessage() for record in caplog.records if record.name.startswith("mlapp")]
    assert output == ["mlapp monitor run: An alarm was not sent: http://hook answers 500."]


def test_a_run_leaves_older_windows_to_the_one_that_has_just_closed_the_newest(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        service.predict(rows(400, 0, number), f"r{number}")
        service.next_window()
    service.stop()
    place, now = open_place_for_inspection(service.project), time.time()
    reports = [report for report in inspect_windows(service.project, now=now) if report.state != "empty"]
    assert closing._store_closed_reports(place, reports[-1])  # as far as a run came that was killed
    assert close_windows(service.project).windows == 0
    monkeypatch.setattr(closing, "UNDER_WAY", 0.0)
    assert close_windows(service.project).windows == 1


def test_a_run_reads_the_last_windows_and_those_that_no_run_has_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "EVALUATED", 1)
    read: list[int] = []

    def count_windows(place: Any, windows: Any, baselines: Any) -> Any:
        read.append(len(windows))
        return read_history_counts(place, windows, baselines)

    monkeypatch.setattr("mlapp.monitoring.inspection.read_history_counts", count_windows)
    for number in range(7):
        service.predict(rows(400, 0, number), f"r{number}")
        service.next_window()
    service.stop()
    assert [close_windows(service.project).windows for _ in range(2)] == [7, 0]
    assert read == [7, 1 + WARMING]


def test_an_alarm_goes_on_while_too_few_rows_come_to_test(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "EVALUATED", 1)
    sent = []
    for number, (shift, count) in enumerate([(8, 400)] * 2 + [(0, 20)] * 6):
        service.predict(rows(count, shift, number), f"r{number}")
        service.next_window()
        service.recorder.write_waiting()
        sent += close_windows(service.project, service.now + 5).sent
    assert [event["status"] for event in sent] == ["firing", "firing"]


def test_a_metric_that_is_no_number_is_left_out(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = service.predict(rows(100), "r")
    service.stop()
    (tmp_path / "truths.json").write_text(
        json.dumps([{"id": f"r#{at}", "truth": value} for at, value in enumerate(predictions)])
    )
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    metrics = {"accuracy": float("nan"), "f1": 0.5}
    monkeypatch.setattr("mlapp.monitoring.evaluation.Evaluation.compute_metrics", lambda *arguments: metrics)
    (window,) = windows(mlapp)
    assert (window["state"], window["metrics"], window["truths"]) == ("quiet", {"f1": 0.5}, 100)


def test_a_segment_with_another_schema_is_read_beside_the_others(mlapp: Callable[..., Any], service: Service) -> None:
    service.predict(rows(100), "r")
    service.stop()
    place = open_place_for_inspection(service.project)
    (hour,) = place.names("log", "1")
    (name,) = place.names("log", "1", hour)
    table = parquet.read_table(io.BytesIO(place.storage.read_key(place.key("log", "1", hour, name)) or b""))
    other = table.set_column(table.schema.get_field_index("income"), "income", table["income"].cast("string"))
    other = other.append_column("bonus", other["row"])
    place.storage.create_key(
        place.key("log", "1", hour, "other-000000001-000000001.parquet"), encode_segment_table(other)
    )
    result = mlapp("monitor", "sql", "SELECT count(*) AS rows, count(bonus) AS bonus FROM log", "--json")
    assert json.loads(result.out) == [{"rows": 200, "bonus": 100}]
    assert windows(mlapp)[0]["rows"] == 100


def test_columns_whose_names_sql_does_not_distinguish(
    mlapp: Callable[..., Any], project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = {"income": "Weight", "city": "weight", "ssn": "truth"}
    source = LOANS.replace('"income"', '"Weight"').replace('"city"', '"weight"')
    root = project(
        source.replace('"ssn"', '"truth"'), mlapp__yaml="monitor: {log: all, window: 10s, segment: weight}\n"
    )
    assert mlapp("train").code == 0
    service = Service(root, monkeypatch)
    predictions = service.predict(rows(100).rename(columns=names), "r")
    service.stop()
    truths = [{"id": f"r#{at}", "truth": value} for at, value in enumerate(predictions)]
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", str(tmp_path / "truths.json")).code == 0
    (window,) = windows(mlapp)
    assert (window["truths"], window["metrics"]["accuracy"]) == (100, 1.0)
    assert {"accuracy[weight=Oslo]", "accuracy[weight=Rome]"} <= set(window["quality"])
    assert mlapp("monitor", "skew").out == "All 100 predictions match those of the training path.\n"
    sql = 'SELECT count(*) AS n FROM log WHERE "feature.Weight" > 0 AND weight = 1'
    assert json.loads(mlapp("monitor", "sql", sql, "--json").out) == [{"n": 100}]


def test_replicas_whose_clocks_differ_by_minutes_count_in_the_windows_of_their_own_clocks(
    mlapp: Callable[..., Any], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.predict(rows(100), "first")
    service.stop()
    other = Service(service.project.root, monkeypatch)
    other.now -= 180
    other.predict(rows(100), "second")
    other.stop()
    assert [window["rows"] for window in windows(mlapp)] == [100, 100]
    assert mlapp("monitor", "run").code == 0


@pytest.mark.parametrize("setting", ["columns: {incom: drop}", "segment: ctiy"])
def test_a_column_that_does_not_exist_is_refused_before_training(setting, project, mlapp) -> None:
    root = project(LOANS, mlapp__yaml=f"monitor: {{{setting}}}\n")
    result = mlapp("train")
    assert (result.code, len(result.err.strip().splitlines()[-2:])) == (2, 2)
    assert "mlapp.yaml: monitor." in result.err
    assert "Did you mean" in result.err
    assert not (root / ".mlapp/store/loans/1").exists()


def test_a_metric_that_does_not_exist_is_named_by_train_and_doctor(project, mlapp) -> None:
    quality = "{acuracy: -0.03, accuracy: 0.03}"
    promote = "{better: f2}"
    settings = f"columns: {{customer: hash}}, quality: {quality}, promote: {promote}"
    project(LOANS, mlapp__yaml=f"monitor: {{{settings}}}\n")
    warning = "monitor.quality.acuracy: the evaluator returns no 'acuracy'. Did you mean 'accuracy'?"
    trained = mlapp("train")
    assert (trained.code, warning in trained.err) == (0, True)
    assert "monitor.quality.accuracy: 0.03 raises an alarm when accuracy gets better." in trained.err
    assert "no feature is called 'customer'" in trained.err
    assert "monitor.promote.better: the evaluator returns no 'f2'." in trained.err
    assert "monitor.log: it is off, so monitor.quality has no effect." in trained.err
    assert "monitor.retrain: it is not set, so monitor.promote has no effect." in trained.err
    result = mlapp("doctor")
    assert warning in result.out + result.err


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda: [][0], "raised IndexError"),
        (lambda: sys.exit(3), "raised SystemExit: 3"),
        (lambda: None, "The data is not a table: NoneType"),
        (lambda: pd.DataFrame([["r#0", 1, 1]], columns=["id", "truth", "truth"]), "Two columns are named 'truth'"),
        (lambda: pd.DataFrame({"id": ["r#0"], "truth": ["yes"]}), "truth is not of type integer"),
    ],
)
def test_a_truth_reader_that_fails_hides_no_feedback(
    read: Callable[[], Any], what: str, mlapp: Callable[..., Any], service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = service.predict(rows(30), "r")
    service.stop()
    truths = [{"id": f"r#{at}", "truth": value} for at, value in enumerate(predictions)]
    Path("truths.json").write_text(json.dumps(truths))
    assert mlapp("feedback", "truths.json").code == 0
    service.project.app.truth_reader(read)
    (report,) = inspect_windows(service.project)
    assert (report.truths, report.metrics["accuracy"]) == (30, 1.0)
    assert "Truths are missing: truth_reader " in caplog.text
    assert what in caplog.text


def test_a_truth_that_becomes_known_days_after_its_window(service: Service) -> None:
    service.now -= 3 * 86400
    predictions = service.predict(rows(30), "r")
    service.stop()

    def read(since: datetime, until: datetime) -> pd.DataFrame:
        decided = datetime.now(timezone.utc) - timedelta(minutes=1)
        count = len(predictions) if since <= decided <= until else 0
        return pd.DataFrame({"id": [f"r#{at}" for at in range(count)], "truth": predictions[:count]})

    service.project.app.truth_reader(read)
    (report,) = inspect_windows(service.project, since=service.now - 86400, until=service.now + 86400)
    assert (report.truths, report.metrics["accuracy"]) == (30, 1.0)


@pytest.mark.parametrize(("seasonal", "alarms"), [(True, set()), (False, {"income", "prediction"})])
def test_what_is_usual_at_this_weekday_and_hour_is_no_alarm(seasonal: bool, alarms: set[str], service: Service) -> None:
    text = f"monitor: {{log: off, window: 10s, drift: {{seasonal: {str(seasonal).lower()}}}}}"
    Path("mlapp.yaml").write_text(text)
    now = service.now
    for at in (now - 7 * 86400, now):
        service.now = at
        for number in range(2):
            service.predict(rows(400, 8, number), f"{at}-{number}")
            service.next_window()
        service.stop()
    reports = inspect_windows(Project.find("."))
    assert {alarm.column for report in reports for alarm in report.alarms} == alarms


def test_windows_of_two_lengths_have_their_own_quality() -> None:
    """`monitor.window` was changed from a minute to an hour."""
    minute, hour = Window(7_200, 60), Window(7_200, 3_600)
    counts = [Counts(version="1", since=one.since, until=one.until, rows=10) for one in (minute, hour)]
    quality = {("1", minute): Quality(truths=5), ("1", hour): Quality(truths=300)}
    reports = find_window_alarms(counts, {}, Monitor(), now=20_000, quality=quality)
    assert {report.until - report.since: report.truths for report in reports} == {
        timedelta(minutes=1): 5,
        timedelta(hours=1): 300,
    }


def test_segments_of_a_column_of_lists(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"city": [["Oslo", "Rome"], ["Oslo"]] * 30, "prediction": [1, 0] * 30})
    quality = Quality()
    evaluation = Evaluation(
        service.project.app, service.project.store, open_place_for_inspection(service.project), service.settings
    )
    monkeypatch.setattr(evaluation, "compute_metrics", lambda predictor, manifest, rows: {"accuracy": float(len(rows))})
    loaded = evaluation._load_version_once("1")
    assert loaded is not None
    evaluation._evaluate_segments(quality, loaded, table, "city")
    assert sorted(quality.details) == ["accuracy[city=['Oslo', 'Rome']]", "accuracy[city=['Oslo']]"]


def test_a_task_of_flyte_closes_the_windows_too(mlapp: Callable[..., Any], service: Service) -> None:
    workflow = pytest.importorskip("mlapp.flyte.workflow", reason="needs mlapp-kit[flyte]")
    from mlapp.flyte import app_source

    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    closed = workflow.monitor_workflow(app_source.make_flyte_app_source(service.project))()
    assert closed.startswith("2 windows closed, ")
    assert "firing: income is distributed differently" in closed
    assert close_windows(service.project).windows == 0


def test_without_a_period_only_the_last_windows_are_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of short windows has thousands."""
    monkeypatch.setattr(inspection, "EVALUATED", 2)
    read: list[int] = []
    place, now = open_place_for_inspection(service.project), int(time.time()) // 10 * 10
    for at in range(now - 200, now - 100, 10):
        content = b'{"version":"1","since":%d,"until":%d,"rows":5}' % (at, at + 10)
        place.storage.create_key(place.key(f"counts/1/{at}-10/replica-000000001.json"), content)
    decode = history.decode_counts
    monkeypatch.setattr(
        history, "decode_counts", lambda content, *rest: read.append(len(content)) or decode(content, *rest)
    )
    assert len(inspect_windows(service.project, evaluates=False)) == 2
    assert len(read) == 2 + WARMING
    assert len(inspect_windows(service.project, since=now - 300.0, evaluates=False)) == 10


def test_train_and_monitor_say_that_very_many_features_are_not_watched(
    mlapp: Callable[..., Any],
    project: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = project(WIDE, mlapp__yaml="monitor: {window: 10s}\n")
    sentence = "The drift of the 513 features is not monitored, because they are more than 512."
    assert mlapp("train").code == 0
    assert sentence in caplog.text
    place, at = open_place_for_inspection(Project.find(root)), int(time.time()) // 10 * 10 - 10
    content = b'{"version":"1","since":%d,"until":%d,"rows":5}' % (at, at + 10)
    place.storage.create_key(place.key(f"counts/1/{at}-10/replica-000000001.json"), content)
    assert f"Version 1: {sentence}" in mlapp("monitor").err
    assert mlapp("monitor", "report", "--html", "report.html").code == 0
    assert f"Version 1: {sentence}" in Path("report.html").read_text()
    served = Service(root, monkeypatch)
    page = render_monitoring_report("wide", served.recorder.place, served.recorder).decode()
    assert f"Version 1: {sentence}" in page
