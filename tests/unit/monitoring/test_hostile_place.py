"""A bucket that others can write to: a damaged or false file is reported, and does not stop alarms or reach a page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlapp.monitoring import file_limits
from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.monitoring.segments import encode_segment_table
from mlapp.monitoring.truth import Truth, encode_truths
from tests.hook import Hook
from tests.unit.monitoring.service import Service, rows

pa = pytest.importorskip("pyarrow", reason="needs mlapp-kit[monitor]")
parquet = pytest.importorskip("pyarrow.parquet")

SCRIPT = "<script>alert(1)<script\x1b[2J\u202e"


def write(service: Service, content: bytes, *parts: str) -> Path:
    place = open_place_for_inspection(service.project)
    file = Path(place.storage.root) / place.key(*parts)  # type: ignore[attr-defined]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def read(service: Service, kind: str) -> list[tuple[tuple[str, ...], bytes]]:
    """The names and the content of each file of `counts` or `log`."""
    root = service.project.root / ".mlapp/store/loans/monitor"
    files = sorted(file for file in (root / kind).rglob("*") if file.is_file())
    return [(file.relative_to(root).parts, file.read_bytes()) for file in files]


def change(table: Any, name: str, values: list[Any]) -> bytes:
    return encode_segment_table(
        table.set_column(table.schema.get_field_index(name), name, pa.array(values * len(table)))
    )


def damage_pages(table: Any) -> bytes:
    content = bytearray(encode_segment_table(table))
    content[200 : len(content) // 2 : 37] = b"\xff" * len(content[200 : len(content) // 2 : 37])
    return bytes(content)


SEGMENTS: dict[str, Callable[[Any], bytes]] = {
    "empty": lambda table: b"",
    "damaged": damage_pages,
    "without requests": lambda table: encode_segment_table(table.drop_columns(["request"])),
    "times as texts": lambda table: change(table, "time", ["yesterday"]),
    "lists of incomes": lambda table: change(table, "income", [[1.0]]),
}


def test_a_false_segment_is_named_and_stops_no_alarm(mlapp: Callable[..., Any], service: Service) -> None:
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}", {"customer": 7})
        service.next_window()
    service.stop()
    Path("mlapp.yaml").write_text("monitor: {log: all, window: 10s}\n")
    ((_, _, hour, _), content), *_ = read(service, "log")
    table = parquet.read_table(io.BytesIO(content))
    for name, make in SEGMENTS.items():
        file = write(service, make(table), "log", "1", hour, "evil-000000001-000000001.parquet")
        for command in (("skew",), ("sql", "SELECT min(time), min(income), min(request) FROM log")):
            ran = mlapp("monitor", *command)
            assert ran.code == 1, (name, command, ran)
            assert "mlapp failed" not in ran.err, (name, command, ran.err)
        assert mlapp("monitor", "--check").code == 1, "there is an alarm"
        file.unlink()
    write(service, b"", "log", "1", hour, "evil-000000001-000000001.parquet")
    assert "firing: income is distributed differently" in mlapp("monitor", "run").err


FALSE_COUNTS: dict[str, Any] = {
    "no JSON": b"{",
    "not UTF-8": b'{"version": "\xff"}',
    "deep": b'{"fields": ' + b"[" * 100_000,
    "a float": {"rows": 400.5},
    "not a number": b'{"version": "1", "rows": NaN}',
    "of another version": {"version": "../../x"},
    "of another time": {"until": 1e300},
    "null": {"since": None},
    "negative": {"rows": -400},
    "a negative bin": {"columns": {"income": [-1] * 203}},
    "10^18": {"rows": 10**18},
    "10^15": {"rows": 10**15},
    "more in the bins": {"rows": 1},
    "of other bins": {"columns": {"income": [1]}},
    "weights": {"squares": 10**9},
    "fields": {"refused": 1, "fields": {"income\x1b[2J": 10**9}},
}


def test_false_counts_are_named_and_left_out(
    mlapp: Callable[..., Any], service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.predict(rows(400), "r")
    service.stop()
    ((_, version, window, _), content), *_ = read(service, "counts")
    for number, changes in enumerate(FALSE_COUNTS.values()):
        false = changes if isinstance(changes, bytes) else json.dumps({**json.loads(content), **changes}).encode()
        write(service, false, "counts", version, window, f"evil.{number}-000000001.json")
    ran = mlapp("monitor", "--json")
    (found,) = json.loads(ran.out)["windows"]
    assert (found["rows"], found["refused"], found["state"]) == (400, 0, "quiet")
    for number, name in enumerate(FALSE_COUNTS):
        assert f"counts/1/{window}/evil.{number}-000000001.json" in caplog.text, name
    assert "\x1b" not in ran.err
    assert mlapp("monitor", "run").code == 0
    assert mlapp("monitor", "report", "--html", "report.html").code == 0


def test_counts_of_a_newer_mlapp_are_an_error(mlapp: Callable[..., Any], service: Service) -> None:
    service.predict(rows(400), "r")
    service.stop()
    ((_, version, window, _), content), *_ = read(service, "counts")
    newer = json.dumps({**json.loads(content), "format": 2}).encode()
    write(service, newer, "counts", version, window, "new-000000001.json")
    ran = mlapp("monitor")
    assert (ran.code, "new-000000001.json" in ran.err, "pip install --upgrade" in ran.err) == (1, True, True)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_entry_of_an_alarm_is_named_and_stops_no_other(
    content: bytes, mlapp: Callable[..., Any], service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    write(service, content, "alarms", "abc", "000001.json")
    ran = mlapp("monitor", "run")
    assert (ran.code, "firing: income" in ran.err) == (0, True)
    assert "alarms/abc/000001.json" in caplog.text


def test_an_alarm_waits_for_its_webhook(
    mlapp: Callable[..., Any],
    service: Service,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlapp.monitoring.alerts.PAUSES", ())
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    alerts = 'monitor: {log: all, window: 10s, alerts: [{webhook: "${HOOK}/token"}]}'
    Path("mlapp.yaml").write_text(alerts)
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1")
    assert "2 alarms started" in mlapp("monitor", "run").err
    pending = "2 messages about alarms could not be delivered to ${HOOK}/token."
    assert pending in caplog.text
    assert pending in mlapp("monitor").err
    hook = Hook()
    monkeypatch.setenv("HOOK", hook.url)
    for _ in range(2):
        assert mlapp("monitor", "run").code == 0
    hook.server.shutdown()
    received = sorted((event["column"], event["status"]) for event in hook.bodies)
    assert received == [("income", "firing"), ("prediction", "firing")]
    assert "delivered" not in mlapp("monitor").err


def test_a_truth_that_is_no_json_is_named(service: Service, mlapp: Callable[..., Any], caplog: Any) -> None:
    service.predict(rows(30), "r")
    service.stop()
    write(
        service, encode_truths([Truth("r", at, None, "{") for at in range(30)], 1), "truth", "2026-01-01", "x.parquet"
    )
    write(
        service, encode_truths([Truth("r", at, None, "{") for at in range(30)], 1), "truth", "9999-01-01", "x.parquet"
    )
    assert mlapp("monitor").code == 0
    assert "A stored truth cannot be read" in caplog.text


def test_names_of_versions_and_fields_are_text_on_every_page(mlapp: Callable[..., Any], service: Service) -> None:
    for number in range(2):
        service.predict(rows(400, 8, number), f"r{number}")
        service.next_window()
    service.stop()
    for (_, version, window, name), content in read(service, "counts"):
        counts = json.loads(content)
        write(
            service,
            json.dumps({**counts, "refused": 400, "fields": {SCRIPT: 400}}).encode(),
            "counts",
            version,
            window,
            name,
        )
        write(service, json.dumps({**counts, "version": SCRIPT}).encode(), "counts", SCRIPT, window, name)
    for (_, version, hour, name), content in read(service, "log"):
        assert version == "1"
        write(service, content, "log", SCRIPT, hour, name)
    shown = mlapp("monitor")
    assert "rows were refused because of <script>alert(1)<script\\x1b[2J\\u202e" in shown.out
    assert not {"\x1b", "\u202e"} & set(shown.out + shown.err)
    assert mlapp("monitor", "report", "--html", "report.html").code == 0
    page = Path("report.html").read_text()
    assert ("<script" in page, {"\x1b", "\u202e"} & set(page)) == (False, set())
    output = mlapp("monitor", "run")
    assert output.code == 0
    assert not {"\x1b", "\u202e"} & set(output.err)


def test_a_project_in_a_folder_whose_name_is_a_pattern(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.predict(rows(3), "r")
    service.stop()
    root = service.project.root.rename(service.project.root.with_name("[loans] of *"))
    monkeypatch.chdir(root)
    assert json.loads(mlapp("monitor", "sql", "SELECT count(*) AS n FROM log", "--json").out) == [{"n": 3}]


def test_texts_of_ids_and_keys_in_csv_stay_as_they_are(
    mlapp: Callable[..., Any], service: Service, tmp_path: Path
) -> None:
    service.predict(rows(3), "r", [{"loan": "007"}, {"loan": "NA"}, {"loan": 12}])
    service.stop()
    (tmp_path / "truths.csv").write_text("loan,truth\n007,1\nNA,0\n12,1\n13,\n")
    assert json.loads(mlapp("feedback", str(tmp_path / "truths.csv"), "--json").out) == {"accepted": 3}
    # A missing key makes floats of the others.
    pd.DataFrame({"loan": [12.0, 13.0], "truth": [1, 0]}).to_parquet(tmp_path / "truths.parquet")
    assert json.loads(mlapp("feedback", str(tmp_path / "truths.parquet"), "--json").out) == {"accepted": 2}
    window_list = json.loads(mlapp("monitor", "--json").out)["windows"]
    assert [window["truths"] for window in window_list if window["rows"]] == [3]
    assert "1 row deleted" in mlapp("monitor", "forget", "--key", "loan=007", "--yes").out


def encode_bomb(rows: int, columns: int) -> bytes:
    """A file with many rows or columns in few bytes."""
    cells = pa.repeat(pa.scalar(0, pa.int8()), rows)
    out = io.BytesIO()
    parquet.write_table(pa.table({f"x{at}": cells for at in range(columns)}), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize(
    ("rows", "columns", "limit", "what"),
    [(2_000_001, 1, None, "it has 2,000,001 rows"), (1, 4_000, 100_000, "its footer has ")],
    ids=["rows", "columns"],
)
def test_a_file_that_would_fill_the_memory_is_named_and_not_read(
    rows: int, columns: int, limit: int | None, what: str, service: Service, mlapp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        monkeypatch.setattr(file_limits, "MAX_FOOTER", limit)
    place = open_place_for_inspection(service.project)
    content = encode_bomb(rows, columns)
    assert len(content) < 2_000_000
    place.storage.create_key(place.key("log/1/2026-01-01T00/r-000000001-000000001.parquet"), content)
    for command in (("sql", "SELECT 1 FROM log"), ("forget", "--key", "id=r", "--yes")):
        ran = mlapp("monitor", *command)
        assert (ran.code, len(ran.err.splitlines())) == (1, 2)
        assert "r-000000001-000000001.parquet" in ran.err
        assert what in ran.err
        assert "Delete this file" in ran.err
