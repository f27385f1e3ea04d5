"""Errors of a build, and their messages."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

import pytest
import requests
import urllib3

from mlapp.images import bytecode
from mlapp.images.engine import explain_image_engine_error


def test_an_engine_that_stops_in_the_middle_is_reported_in_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    closed = http.client.RemoteDisconnected("Remote end closed connection without response")
    error = requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", closed))
    explained = explain_image_engine_error(error, "Loading the image")
    assert explained.what == "Loading the image: the engine at unix:///run/docker.sock closed the connection."
    assert explained.todo == "Check that it still runs (docker info), and retry."


def test_a_cache_that_cannot_be_written_stops_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packages = tmp_path / "site-packages"
    (packages / "six-1.0.dist-info").mkdir(parents=True)
    (packages / "six-1.0.dist-info" / "RECORD").write_text("six.py,,\n")
    (packages / "six.py").write_text("A = 1\n")
    bytecode.compile_package_bytecode(packages, "/opt/venv", sys.executable)
    assert list((packages / "__pycache__").glob("six.*.pyc"))
    (packages / "__pycache__").rename(packages / "kept")
    (packages / "__pycache__").symlink_to("/proc/nothing")
    with pytest.raises(OSError, match="__pycache__"):
        bytecode.compile_package_bytecode(packages, "/opt/venv", sys.executable)
