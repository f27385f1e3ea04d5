"""In a container, the server takes only bodies whose answers fit in the memory that is left."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from mlapp import container_memory
from mlapp.config import Serve
from mlapp.embed.host import ModelHost
from mlapp.serving.web.intake import MEMORY_PER_BODY_BYTE, HeldBody, Intake
from mlapp.serving.web.problems import HttpError
from mlapp.wsgi import create_wsgi

MB = 1_000_000
PACKED = {"content-type": "application/json", "content-encoding": "gzip"}
VERSION_1 = {
    "memory/memory.limit_in_bytes": "{limit}",
    "memory/memory.usage_in_bytes": "{used}",
    "memory/memory.stat": "inactive_file 5\nactive_file 5\ntotal_inactive_file {cached}\ntotal_active_file 0\n",
}
VERSION_2 = {
    "memory.max": "{limit}",
    "memory.current": "{used}",
    "memory.stat": "file 9\nactive_file {cached}\ninactive_file 0\n",
}


@pytest.fixture(params=[VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def container(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write the files of a container, in each version of control groups; sizes in MB."""
    monkeypatch.setattr(container_memory, "CGROUP", tmp_path)
    monkeypatch.setattr(container_memory, "PROCESSES", tmp_path / "proc")  # pytest's workers look like a server's

    def write_files(limit: int, used: int = 0, cached: int = 0) -> None:
        for name, text in request.param.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text.format(limit=limit * MB, used=used * MB, cached=cached * MB))

    return write_files


@pytest.mark.parametrize("text", ["max", str(2**63 - 4096)])
def test_no_limit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(container_memory, "CGROUP", tmp_path)
    assert container_memory.read_memory_limit() is None
    (tmp_path / "memory.max").write_text(text)
    assert (container_memory.read_memory_limit(), container_memory.read_free_memory()) == (None, None)


def test_cached_files_count_as_free(container) -> None:
    container(500, used=300, cached=100)
    assert (container_memory.read_memory_limit(), container_memory.read_free_memory()) == (500 * MB, 300 * MB)


def test_the_default_limit_takes_a_body_of_the_largest_size(container) -> None:
    """A pod with the default limit, and a server that needs 200 MB."""
    container(1074, used=200)
    intake = Intake(Serve())
    intake.fit_to_container()
    intake.take(Serve().max_body)
    with pytest.raises(HttpError) as full:
        intake.take(Serve().max_body)
    assert full.value.status == 503


def test_a_body_that_never_fits_is_too_large_and_the_log_says_why(container, caplog: pytest.LogCaptureFixture) -> None:
    container(500, used=150)
    intake = Intake(Serve())
    intake.fit_to_container()
    with pytest.raises(HttpError) as refused:
        intake.take(Serve().max_body)
    assert refused.value.status == 413
    assert "Raise the container's memory limit, or lower serve.max_body." in caplog.text


def test_workers_share_the_memory_and_small_bodies_are_always_taken(container) -> None:
    container(2000)
    one, four = Intake(Serve()), Intake(Serve(workers=4))
    one.fit_to_container()
    four.fit_to_container()
    assert MB < four.limit < one.limit / 4
    container(500, used=450)
    four.fit_to_container()
    four.take(MB)


def test_a_setting_and_a_large_container_change_nothing(container) -> None:
    container(200)
    given, large = Intake(Serve(max_bodies=100 * MB)), Intake(Serve())
    before = large.limit
    given.fit_to_container()
    container(64_000)
    large.fit_to_container()
    assert (given.limit, large.limit) == (100 * MB, before)


def test_what_was_counted_is_given_back() -> None:
    intake = Intake(Serve(max_bodies=100))
    held = HeldBody(intake)
    held.add(10)
    held.count_at_least(60)
    held.count_at_least(20)
    assert intake.held == 60
    with pytest.raises(HttpError):
        HeldBody(intake).add(50)
    held.release()
    assert intake.held == 0


def test_of_two_bodies_that_arrive_together_one_is_taken() -> None:
    intake = Intake(Serve(max_bodies=100))
    first, second = HeldBody(intake), HeldBody(intake)
    first.add(50)
    second.add(50)
    with pytest.raises(HttpError):
        first.add(20)
    second.add(20)
    assert intake.held == 70


@pytest.mark.anyio
async def test_a_compressed_body_counts_with_its_unpacked_size(numbers, serve) -> None:
    body = gzip.compress(json.dumps([[1, 2]] * 5000).encode())
    async with serve(*numbers, max_bodies=1000) as client:
        assert len(body) < 1000
        assert (await client.post("/predict", content=body, headers=PACKED)).status_code == 413
        assert client.application.intake.held == 0


def test_a_site_gives_back_what_a_compressed_body_took(numbers) -> None:
    site = create_wsgi(numbers[0], model=numbers[1], settings=Serve(max_bodies=100_000))
    host = next(value for value in vars(site).values() if isinstance(value, ModelHost))
    body = gzip.compress(json.dumps([[1, 2]] * 5000).encode())
    with httpx.Client(transport=httpx.WSGITransport(site), base_url="http://test") as client:
        answer = client.post("/predict", content=body, headers=PACKED)
    assert (answer.status_code, host.state.intake.held) == (200, 0)


FORKS = r"""
import os

from mlapp.container_memory import count_sibling_workers

all_started, all_counted = os.pipe(), os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.close(all_started[1])
        os.read(all_started[0], 1)
        os.write(1, b"%d\n" % count_sibling_workers())
        os.close(all_counted[1])
        os.read(all_counted[0], 1)
        os._exit(0)
os.close(all_started[1])
os.close(all_counted[1])
for _ in range(3):
    os.wait()
"""


def test_the_workers_of_a_wsgi_server_are_counted() -> None:
    """Each of gunicorn's workers has the command line of the parent."""
    ran = subprocess.run([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, check=True, timeout=100)
    assert ran.stdout.split() == [b"3"] * 3


def test_the_sum_of_unknown_workers_stays_below_the_limit(container, monkeypatch: pytest.MonkeyPatch) -> None:
    container(4000)
    monkeypatch.setattr("mlapp.serving.web.intake.count_sibling_workers", lambda: 4)
    sites = [Intake(Serve(max_body=200 * MB)) for _ in range(4)]
    for site in sites:
        site.fit_to_container()
    assert sum(site.limit for site in sites) * MEMORY_PER_BODY_BYTE < 4000 * MB
