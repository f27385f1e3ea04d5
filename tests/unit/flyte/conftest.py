"""What Flyte's tests share: each project's modules are forgotten after its test, and flytekit caches nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def has_no_local_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """flytekit's own cache outlives the files that it names."""
    monkeypatch.setenv("FLYTE_LOCAL_CACHE_ENABLED", "false")


@pytest.fixture(autouse=True)
def forgets_modules(tmp_path: Path) -> Iterator[None]:
    here, path = Path.cwd(), list(sys.path)
    for name in ("app", "helpers", "lazy"):
        sys.modules.pop(name, None)
    yield
    os.chdir(here)
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]
