"""The framework of a model is found without importing the adapters of others."""

from __future__ import annotations

from sklearn.linear_model import LogisticRegression

from mlapp.frameworks import find_framework, get_framework, registry


def test_only_the_adapter_of_a_models_package_is_imported(monkeypatch):
    loaded = []
    load = registry._load_framework_adapter
    monkeypatch.setattr(registry, "_load_framework_adapter", lambda name: loaded.append(name) or load(name))
    assert find_framework(LogisticRegression).name == "sklearn"
    assert get_framework("sklearn").name == "sklearn"
    assert loaded == ["sklearn", "sklearn"]
