"""scikit-learn's checks of a DataFrame's columns, remembered by the server, have the same results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import validation

from mlapp.frameworks import sklearn_checks
from mlapp.frameworks.sklearn_checks import remember_column_checks

CHECKS = [name for name in sklearn_checks.CHECKS if hasattr(validation, name)]
"""Older versions of scikit-learn lack one."""
TYPES = ["float64", "float32", "int64", "bool", "object", "Int64", "Float64", "boolean", "string", "category", "Sparse"]


@pytest.mark.parametrize("name", CHECKS)
def test_a_column_has_the_same_checks(monkeypatch, name):
    check = getattr(validation, name)
    for each in CHECKS:
        monkeypatch.setattr(validation, each, getattr(validation, each))
    remember_column_checks()
    assert getattr(validation, name) is not check
    for _ in range(2):
        for kind in TYPES:
            dtype = pd.Series([1, 0]).astype("Sparse[int]" if kind == "Sparse" else kind).dtype
            assert getattr(validation, name)(dtype) == check(dtype), kind


def test_numpy_types_are_checked_once(monkeypatch):
    calls = []
    for name in CHECKS:
        monkeypatch.setattr(validation, name, lambda dtype, name=name: calls.append((name, dtype)) or False)
    remember_column_checks()
    remember_column_checks()
    table = pd.DataFrame(np.ones((2, 30))).astype({0: "Int64"})
    for _ in range(3):
        validation.check_array(table)
    for name in CHECKS:
        assert calls.count((name, np.dtype("float64"))) == 1
        assert calls.count((name, pd.Int64Dtype())) == 3
