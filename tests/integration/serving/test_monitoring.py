"""Monitoring by a real server: its records, feedback and report, and what remains after a kill."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from playwright.sync_api import expect

from mlapp.errors import StoreError
from mlapp.monitoring.database import query_monitoring_database
from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import select_current_segments
from mlapp.monitoring.writer import MOST_BYTES, Writer
from mlapp.store.folder_storage import FolderStorage
from tests.browser import needs_browser, open_browser
from tests.integration.serving.conftest import PATIENCE, Server, until

YAML = "monitor: {log: all, window: 2s, run: false, columns: {customer: hash}}\n"
WRITER = """
import itertools, sys, threading
from pathlib import Path
import pyarrow as pa
from mlapp.monitoring.place import Place, make_replica_name
from mlapp.monitoring.segments import encode_segment_table
from mlapp.monitoring.writer import Writer
from mlapp.store.folder_storage import FolderStorage

writer = Writer(Place(FolderStorage(Path(sys.argv[1])), "app"), make_replica_name(), lambda rows: None)
writer.start()
print("ready", flush=True)
for number in itertools.count():
    content = encode_segment_table(pa.table({"row": [number] * 50}))
    writer.add_segment("1", 1_800_000_000, content, 50)
    threading.Event().wait(0.0002)
"""


@pytest.fixture(scope="module")
def monitored(new_project, serve) -> Iterator[Server]:
    project = new_project()
    (project / "mlapp.yaml").write_text(YAML)
    with serve(project) as server:
        yield server


def logged(server: Server, sql: str) -> list[dict[str, object]]:
    mlapp = Path(sys.executable).with_name("mlapp")
    found = subprocess.run(
        [mlapp, "monitor", "sql", sql, "--json"], cwd=server.project, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    rows: list[dict[str, object]] = json.loads(found.stdout)
    return rows


def test_what_is_predicted_is_logged_by_its_id_and_the_truth_finds_it(monitored: Server) -> None:
    with httpx.Client(base_url=monitored.url, timeout=PATIENCE) as client:
        one = client.post("/predict", json={"inputs": [[1, 2]]}, headers={"X-Request-ID": "one"})
        assert one.headers["x-request-id"] == "one"
        keyed = {"inputs": [{"a": 3, "b": 4}], "keys": {"customer": "Ada", "order": 7}}
        assert client.post("/predict", json=keyed).json()["predictions"] == [7.0]
        unnamed = client.post("/predict", json={"inputs": [[5, 6], [7, 8]]}).headers["x-request-id"]
        sent = client.post("/feedback", json={"id": "one", "truth": True})
        assert (sent.status_code, sent.json()) == (200, {"accepted": 1})
        sent = client.post("/feedback", json=[{"keys": {"order": 7}, "truth": False}, {"id": "nobody", "truth": True}])
        assert sent.json() == {"accepted": 2}
        for wrong in ({"id": "one"}, {"truth": True}, {"id": "one", "truth": "yes"}, [], 3):
            refused = client.post("/feedback", json=wrong)
            assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")
            assert refused.json()["title"] == "The truths do not fit the model"
    until(lambda: monitored.metric("mlapp_log_rows_total") == 4)
    until(lambda: len(list((monitored.project / ".mlapp/store/sums/monitor/log").rglob("*.parquet"))) > 0)
    rows = logged(monitored, "SELECT * FROM log ORDER BY a")
    assert [(row["a"], row["b"], row["prediction"]) for row in rows] == [(1, 2, 3), (3, 4, 7), (5, 6, 11), (7, 8, 15)]
    assert (rows[0]["id"], rows[2]["id"], rows[3]["id"]) == ("one", f"{unnamed}#0", f"{unnamed}#1")
    assert rows[1]["key.order"] == "7"
    assert "Ada" not in json.dumps(rows)
    assert monitored.metric("mlapp_monitored_rows_total") == 4


def test_a_refused_field_has_a_series(monitored: Server) -> None:
    refused = httpx.post(f"{monitored.url}/predict", json={"inputs": [{"a": "x", "b": 1}]}, timeout=PATIENCE)
    assert refused.status_code == 422
    until(lambda: monitored.metric("mlapp_feature_problems_total", feature="a", kind="refused") == 1)


@pytest.mark.xdist_group("browser")
@needs_browser
def test_the_live_report_in_a_browser(monitored: Server) -> None:
    rows = [[number % 50, 0.5] for number in range(400)]
    assert httpx.post(f"{monitored.url}/predict", json={"inputs": rows}, timeout=PATIENCE).status_code == 200
    until(lambda: monitored.metric("mlapp_monitored_rows_total") >= 400)
    with open_browser() as browser:
        page = browser.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(monitored.url)
        page.get_by_role("link", name="Monitoring").click()
        expect(page.locator("h1")).to_have_text("sums")
        expect(page.locator("figure.feature", has_text="prediction")).to_be_visible()
        expect(page.locator("figure.feature svg path.now").first).to_be_visible()
    assert not [url for url in asked if not url.startswith((monitored.url, "data:"))]
    assert not errors


def test_of_a_replica_that_is_killed_every_segment_is_whole(tmp_path: Path) -> None:
    """200 by default would take minutes: MLAPP_TEST_KILLS says how many."""
    waits = random.Random(0)
    for number in range(int(os.environ.get("MLAPP_TEST_KILLS", "4"))):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        folder = tmp_path / "app/monitor/log/1"
        until(lambda: folder.is_dir())
        writer.stdout.close()
        try:
            writer.wait(waits.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            writer.kill()
        writer.wait(PATIENCE)
        for hour in folder.iterdir():
            names = [name for name in os.listdir(hour) if not name.startswith(".")]
            found = [
                cell
                for name in select_current_segments(names)
                for cell in parquet.read_table(hour / name)["row"].to_pylist()
            ]
            assert len(found) % 50 == 0, f"kill {number}"
            shutil.rmtree(hour)


class Unreachable(FolderStorage):
    """An unreachable bucket."""

    def create_key(self, key: str, content: bytes) -> bool:
        raise StoreError("The bucket cannot be reached.", "Try again.")


def test_a_place_that_cannot_be_reached_costs_rows_and_not_memory(tmp_path: Path) -> None:
    lost: list[int] = []
    writer = Writer(Place(Unreachable(tmp_path), "app"), "replica", lost.append)
    writer.start()
    content = b"x" * (1 << 20)
    for _ in range(100):
        writer.add_segment("1", 1_800_000_000, content, 10)
    assert writer._bytes <= MOST_BYTES
    assert sum(lost) == 10 * (100 - (MOST_BYTES >> 20))
    for window in range(100):
        writer.put_counts(f"counts/1/{window}", content, rows=1)
    assert sum(len(counts) for counts, _ in writer._counts.values()) <= MOST_BYTES
    assert sum(lost) == 11 * (100 - (MOST_BYTES >> 20)), "the counts of the oldest windows are lost"
    writer.stop(5.0)


def test_a_segment_that_is_cut_off_is_named(tmp_path: Path) -> None:
    place = Place(FolderStorage(tmp_path), "app")
    out = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}), out)
    place.storage.create_key(place.key("log/1/2026-01-01T00/r-000000001-000000001.parquet"), out.getvalue()[:-9])
    with pytest.raises(StoreError, match="r-000000001"):
        query_monitoring_database(place, "SELECT 1 FROM log")


def test_a_named_pipe_in_the_log_is_named_and_blocks_nothing(tmp_path: Path) -> None:
    place = Place(FolderStorage(tmp_path), "app")
    pipe = tmp_path / place.key("log/1/2026-01-01T00/r-000000001-000000001.parquet")
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    with pytest.raises(StoreError, match="r-000000001.* it is not a file"):
        query_monitoring_database(place, "SELECT 1 FROM log")


def test_a_log_of_a_newer_mlapp_is_refused(tmp_path: Path) -> None:
    place = Place(FolderStorage(tmp_path), "app")
    out = io.BytesIO()
    parquet.write_table(pa.table({"a": [1]}).replace_schema_metadata({"mlapp.log": "2"}), out)
    place.storage.create_key(place.key("log/1/2026-01-01T00/r-000000001-000000001.parquet"), out.getvalue())
    with pytest.raises(StoreError, match="format 2"):
        query_monitoring_database(place, "SELECT 1 FROM log")
