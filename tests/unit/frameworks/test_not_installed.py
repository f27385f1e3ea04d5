"""Loading a model whose framework is not installed names the extra that installs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlapp import frameworks
from mlapp.errors import MissingExtraError


@pytest.mark.parametrize(
    ("framework", "package", "extra"),
    [("sklearn", "skops", "sklearn"), ("xgboost", "xgboost", "xgboost"), ("lightgbm", "lightgbm", "lightgbm")],
)
def test_a_framework_that_is_not_installed(
    framework: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    adapter = frameworks.get_framework(framework)
    with pytest.raises(MissingExtraError) as raised:
        adapter.load(tmp_path, adapter.formats[0], ())
    assert f"mlapp-kit[{extra}]" in raised.value.todo


def test_onnx_runtime_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(MissingExtraError) as raised:
        frameworks.get_framework("onnx").load(tmp_path, "onnx", ())
    assert "mlapp-kit[onnx]" in raised.value.todo
