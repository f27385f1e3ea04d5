"""A bucket of which others can write: a damaged or false file is named, and neither stops alarms nor reaches a page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.monitoring.segments import encode_segment_table
from mlapp.monitoring.truth import Truth, encode_truths
from tests.unit.monitoring.service import Service, rows

pa = pytest.importorskip("pyarrow", reason="needs mlapp-kit[monitor]")
parquet = pytest.importorskip("pyarrow.parquet")

SCRIPT = "<script>alert(1)<script\x1b[2J"


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


@pytest.mark.parametrize(
    "changes",
    [{"version": "../../x"}, {"until": 1e300}, {"since": None}, {"columns": {"income": [1]}}, None],
    ids=["version", "time", "null", "bins", "no JSON"],
)
def test_false_counts_are_named(changes: Any, mlapp: Callable[..., Any], service: Service) -> None:
    service.predict(rows(400), "r")
    service.stop()
    ((_, version, window, _), content), *_ = read(service, "counts")
    false = b"{" if changes is None else json.dumps({**json.loads(content), **changes}).encode()
    write(service, false, "counts", version, window, "evil-000000001.json")
    for command in ((), ("run",)):
        ran = mlapp("monitor", *command)
        assert ran.code == 1
        assert f"counts/1/{window} cannot be read" in ran.err


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_entry_of_an_alarm_is_named(content: bytes, mlapp: Callable[..., Any], service: Service) -> None:
    service.predict(rows(400), "r")
    service.stop()
    write(service, content, "alarms", "abc", "000001.json")
    ran = mlapp("monitor", "run")
    assert (ran.code, "alarms/abc/000001.json" in ran.err, "mlapp failed" in ran.err) == (1, True, False)


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
        found = json.loads(content)
        write(
            service,
            json.dumps({**found, "refused": 400, "fields": {SCRIPT: 400}}).encode(),
            "counts",
            version,
            window,
            name,
        )
        write(service, json.dumps({**found, "version": SCRIPT}).encode(), "counts", SCRIPT, window, name)
    for (_, version, hour, name), content in read(service, "log"):
        assert version == "1"
        write(service, content, "log", SCRIPT, hour, name)
    shown = mlapp("monitor")
    assert "rows are refused because of <script>alert(1)<script\\x1b[2J" in shown.out
    assert "\x1b" not in shown.out + shown.err
    assert mlapp("monitor", "report", "--html", "report.html").code == 0
    assert "<script" not in Path("report.html").read_text()
    told = mlapp("monitor", "run")
    assert told.code == 0
    assert "\x1b" not in told.err


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
    found = json.loads(mlapp("monitor", "--json").out)["windows"]
    assert [window["truths"] for window in found if window["rows"]] == [3]
    assert "1 row deleted" in mlapp("monitor", "forget", "--key", "loan=007", "--yes").out
