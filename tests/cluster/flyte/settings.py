"""Where the real Flyte is, from the environment of the test run."""

from __future__ import annotations

import os

import pytest

CONFIG = os.environ.get("MLAPP_TEST_FLYTE_CONFIG")


def configure_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mlapp find the Flyte, the image or registry, and the project and domain of this run."""
    monkeypatch.setenv("FLYTECTL_CONFIG", str(CONFIG))
    if "MLAPP_TEST_FLYTE_IMAGE" in os.environ:
        monkeypatch.setenv("MLAPP_FLYTE__IMAGE", os.environ["MLAPP_TEST_FLYTE_IMAGE"])
    else:
        monkeypatch.setenv("MLAPP_IMAGE__NAME", f"{os.environ['MLAPP_TEST_REGISTRY']}/mlapp-test/tasks")
    monkeypatch.setenv("MLAPP_FLYTE__PROJECT", os.environ.get("MLAPP_TEST_FLYTE_PROJECT", "flytesnacks"))
    monkeypatch.setenv("MLAPP_FLYTE__DOMAIN", os.environ.get("MLAPP_TEST_FLYTE_DOMAIN", "development"))
