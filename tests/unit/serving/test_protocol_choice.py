"""The server's own HTTP protocol where uvicorn is as it knows it, and uvicorn's own everywhere else."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement

from mlapp import distribution
from mlapp.config import Serve
from mlapp.serving import create_asgi
from mlapp.serving.fast_path import internals
from mlapp.serving.process.server import choose_server_protocol


@pytest.fixture
def application(numbers):
    return create_asgi(numbers[0], model=numbers[1])


def test_the_installed_uvicorn_is_known(application):
    assert internals.find_missing_internals() == []
    assert choose_server_protocol(application, Serve()).__name__ == "ServingProtocol"
    assert choose_server_protocol(application, Serve(fast=False)) == "h11"


@pytest.mark.parametrize("name", ["on_header", "_unset_keepalive_if_required", "handle_websocket_upgrade"])
def test_where_uvicorn_lacks_something_its_own_protocol_serves(application, monkeypatch, caplog, name):
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    monkeypatch.delattr(HttpToolsProtocol, name)
    assert choose_server_protocol(application, Serve()) == "h11"
    assert name in caplog.text


def test_versions_that_were_not_tested_are_not_installed():
    wanted = [Requirement(line) for line in importlib.metadata.requires(distribution.NAME) or []]
    uvicorn = next(each for each in wanted if each.name == "uvicorn")
    assert "99.0" not in uvicorn.specifier
    assert importlib.metadata.version("uvicorn") in uvicorn.specifier
