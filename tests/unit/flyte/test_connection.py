"""The connection to flyteadmin, as flytekit makes it with our options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from mlapp.config import Flyte
from mlapp.flyte.connection import Connection


def test_an_idle_connection_sends_no_pings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flytekit pings every 30 seconds, also without a call, and flyteadmin answers with GOAWAY `too_many_pings`."""
    (tmp_path / "config.yaml").write_text("admin: {endpoint: 127.0.0.1:9, insecure: true}\n")
    monkeypatch.setenv("FLYTECTL_CONFIG", str(tmp_path / "config.yaml"))
    opened: list[list[tuple[str, Any]]] = []
    make = grpc.insecure_channel

    def record(target: str, options: Any = None, compression: Any = None) -> grpc.Channel:
        opened.append(list(options))
        return make(target, options, compression)

    monkeypatch.setattr(grpc, "insecure_channel", record)
    assert Connection(Flyte()).client
    options = dict(opened[0])
    assert len(options) == len(opened[0]), "of options with the same name, gRPC uses the first"
    assert options["grpc.keepalive_permit_without_calls"] == 0
    assert options["grpc.keepalive_time_ms"] == 300_000
    assert options["grpc.max_receive_message_length"] == 20 * 2**20
