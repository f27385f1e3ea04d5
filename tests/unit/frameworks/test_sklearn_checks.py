"""scikit-learn's checks of a model's input, shortened by the server, have the same results."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
from scipy.sparse import csr_matrix
from sklearn.utils import validation

from mlapp.frameworks import sklearn_checks
from mlapp.frameworks.sklearn_checks import NEWEST, read_sklearn_version, shorten_input_checks

COLUMN_CHECKS = [name for name in sklearn_checks.COLUMN_CHECKS if hasattr(validation, name)]
"""Older versions of scikit-learn lack one."""
ARRAY_CHECKS = [name for name in sklearn_checks.ARRAY_RESULTS if hasattr(validation, name)]
TYPES = ["float64", "float32", "int64", "bool", "object", "Int64", "Float64", "boolean", "string", "category", "Sparse"]


class Matrix(np.ndarray):
    """An array of another class."""


@pytest.fixture
def original(monkeypatch):
    """The functions of scikit-learn, which are restored after the test."""
    checks = {name: getattr(validation, name) for name in (*COLUMN_CHECKS, *ARRAY_CHECKS)}
    for name, check in checks.items():
        monkeypatch.setattr(validation, name, check)
    return checks


@pytest.mark.parametrize("name", COLUMN_CHECKS)
def test_a_column_has_the_same_checks(original, name):
    shorten_input_checks()
    assert getattr(validation, name) is not original[name]
    for _ in range(2):
        for kind in TYPES:
            dtype = pd.Series([1, 0]).astype("Sparse[int]" if kind == "Sparse" else kind).dtype
            assert getattr(validation, name)(dtype) == original[name](dtype), kind


@pytest.mark.usefixtures("original")
def test_numpy_types_are_checked_once(monkeypatch):
    calls = []
    for name in COLUMN_CHECKS:
        monkeypatch.setattr(validation, name, lambda dtype, name=name: calls.append((name, dtype)) or False)
    shorten_input_checks()
    shorten_input_checks()
    table = pd.DataFrame(np.ones((2, 30))).astype({0: "Int64"})
    for _ in range(3):
        validation.check_array(table)
    for name in COLUMN_CHECKS:
        assert calls.count((name, np.dtype("float64"))) == 1
        assert calls.count((name, pd.Int64Dtype())) == 3


@pytest.mark.parametrize("name", ARRAY_CHECKS)
def test_an_input_has_the_same_checks(original, name):
    shorten_input_checks()
    assert getattr(validation, name) is not original[name]
    inputs = [np.ones((2, 2)), np.ones(2), np.array(["a"], dtype=object), np.ones((2, 2)).view(Matrix), [[1.0]], None]
    table = pd.DataFrame({"a": [1.0], "b": [2.0]})
    for values in [*inputs, np.ma.masked_array([1.0]), csr_matrix([[1.0]]), table, table["a"], pa.table({"a": [1]})]:
        assert str(getattr(validation, name)(values)) == str(original[name](values)), type(values)


@pytest.mark.usefixtures("original")
@pytest.mark.parametrize("name", ARRAY_CHECKS)
def test_arrays_are_not_checked(monkeypatch, name):
    calls = []
    monkeypatch.setattr(validation, name, calls.append)
    shorten_input_checks()
    getattr(validation, name)(np.ones((2, 2)))
    assert not calls


def test_the_installed_version_is_compared():
    assert read_sklearn_version() <= NEWEST, "Compare its functions with the replaced ones, then raise NEWEST."


@pytest.mark.parametrize("version", [f"{NEWEST[0]}.{NEWEST[1] + 1}.0", f"{NEWEST[0] + 1}.0rc1"])
def test_a_newer_version_is_left_as_it_is(original, monkeypatch, version):
    monkeypatch.setattr(sklearn, "__version__", version)
    shorten_input_checks()
    assert all(getattr(validation, name) is check for name, check in original.items())
