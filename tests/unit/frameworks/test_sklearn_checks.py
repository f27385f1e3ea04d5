"""scikit-learn's checks of a model's input, shortened by the server, have the same results."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import validation

from mlapp.frameworks.sklearn_checks import NEWEST, REPLACEMENTS, read_sklearn_version, shorten_input_checks

CHECKS = [name for name in REPLACEMENTS if hasattr(validation, name)]
"""Older versions of scikit-learn lack some."""
COLUMN_CHECKS = [name for name in CHECKS if name.startswith(("_pandas_dtype", "_is_pandas"))]
INPUT_CHECKS = [name for name in CHECKS if name not in (*COLUMN_CHECKS, "check_array")]
TYPES = ["float64", "float32", "int64", "bool", "object", "Int64", "Float64", "boolean", "string", "category", "Sparse"]


class Matrix(np.ndarray):
    """An array of another class."""


class Table(pd.DataFrame):
    """A table of another class."""


def make_tables():
    """Tables of numbers, and of all that is not plain numbers."""
    floats = pd.DataFrame({"a": [1.5, 2.5], "b": [3.0, -4.0]})
    two_levels = floats.set_axis(pd.MultiIndex.from_product([["a"], ["b", "c"]]), axis=1)
    return {
        "floats": floats,
        "one block": pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=["a", "b", "c"]),
        "float32": floats.astype("float32"),
        "float16": floats.astype("float16"),
        "int64": floats.astype("int64"),
        "uint8": floats.abs().astype("uint8"),
        "int64 and float32": floats.astype({"a": "int64", "b": "float32"}),
        "int64 and uint64": floats.abs().astype({"a": "int64", "b": "uint64"}),
        "NaN": floats.assign(b=[np.nan, 1.0]),
        "infinity": floats.assign(b=[np.inf, 1.0]),
        "bool": floats.assign(b=[True, False]),
        "only bool": floats > 2,
        "complex": floats.astype("complex128"),
        "texts": floats.assign(b=["1", "x"]),
        "objects": floats.astype(object),
        "Int64": floats.assign(a=pd.array([1, 2], "Int64")),
        "Int64 with NA": floats.assign(b=pd.array([1, None], "Int64")),
        "category": floats.astype("category"),
        "sparse": floats.astype("Sparse[float]"),
        "some sparse": floats.astype({"a": "Sparse[float]"}),
        "times": floats.assign(b=pd.to_datetime(["2026-01-01", "2026-01-02"])),
        "same names": floats.set_axis(["a", "a"], axis=1),
        "numbers as names": floats.set_axis([0, 1], axis=1),
        "mixed names": floats.set_axis(["a", 1], axis=1),
        "missing name": floats.set_axis(["a", None], axis=1),
        "object names": floats.set_axis(pd.Index(["a", "b"], dtype=object), axis=1),
        "column dtype": floats.set_axis(["dtype", "sparse"], axis=1),
        "two levels": two_levels,
        "another class": Table(floats),
        "no rows": floats.iloc[:0],
        "no columns": floats[[]],
        "other index": floats.set_axis(["x", "y"]),
    }


def describe_outcome(function, table, options):
    """Everything that a caller can see: the result and its memory, or the error, and the warnings."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        try:
            result = function(table, **options)
        except Exception as error:
            result = type(error), str(error)
        else:
            cells = result.toarray() if hasattr(result, "toarray") else result
            flags = cells.flags.writeable, cells.flags.c_contiguous, cells.flags.f_contiguous
            result = type(result), cells.dtype, cells.shape, repr(cells.tolist()), flags
            if cells.flags.writeable and cells.dtype.kind == "f":  # whether a write changes the table
                cells[:] = 7
    return result, [(warning.category, str(warning.message)) for warning in messages], repr(table)


@pytest.fixture
def original(monkeypatch):
    """The functions of scikit-learn, which are restored after the test."""
    checks = {name: getattr(validation, name) for name in CHECKS}
    monkeypatch.setattr(checks["check_array"], "__module__", "sklearn.utils.validation")
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


@pytest.mark.parametrize("name", INPUT_CHECKS)
def test_an_input_has_the_same_checks(original, name):
    shorten_input_checks()
    assert getattr(validation, name) is not original[name]
    inputs = [np.ones((2, 2)), np.ones(2), np.array(["a"], dtype=object), np.ones((2, 2)).view(Matrix), [[1.0]], None]
    table = pd.DataFrame({"a": [1.0], "b": [2.0]})
    for values in [*inputs, np.ma.masked_array([1.0]), csr_matrix([[1.0]]), table, table["a"], pa.table({"a": [1]})]:
        assert str(getattr(validation, name)(values)) == str(original[name](values)), type(values)


@pytest.mark.usefixtures("original")
@pytest.mark.parametrize("name", INPUT_CHECKS)
def test_arrays_are_not_checked(monkeypatch, name):
    calls = []
    monkeypatch.setattr(validation, name, calls.append)
    shorten_input_checks()
    getattr(validation, name)(np.ones((2, 2)))
    assert not calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": None},
        {"dtype": np.float32},
        {"dtype": np.int64},
        {"dtype": object},
        {"dtype": [np.float64, np.float32]},
        {"dtype": [np.float32, np.float64], "order": "C"},
        {"order": "F", "accept_sparse": True},
        {"copy": True},
        {"force_writeable": True},
        {"copy": True, "force_writeable": True, "ensure_all_finite": "allow-nan"},
        {"ensure_all_finite": False, "ensure_non_negative": True, "ensure_min_samples": 3},
    ],
    ids=str,
)
def test_a_table_has_the_same_checks(original, options):
    shorten_input_checks()
    assert validation.check_array is not original["check_array"]
    for name, table in make_tables().items():
        expected = describe_outcome(original["check_array"], table.copy(), options)
        assert describe_outcome(validation.check_array, table.copy(), options) == expected, name


def test_a_table_has_the_same_names(original):
    shorten_input_checks()
    for name, table in make_tables().items():
        outcomes = []
        for get_names in (original["_get_feature_names"], validation._get_feature_names):
            try:
                outcomes.append(repr(get_names(table)))
            except Exception as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1], name


@pytest.mark.usefixtures("original")
def test_a_model_predicts_the_same(monkeypatch):
    features = pd.DataFrame(np.random.default_rng(0).random((50, 3)), columns=["a", "b", "c"])
    target = features["a"] > features["b"]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, target)
    before, original = model.predict_proba(features), features.copy()
    shorten_input_checks()
    assert (model.predict_proba(features) == before).all()
    assert features.equals(original)
    for wrong in (features[["b", "a", "c"]], features[["a", "b"]], features.rename(columns={"c": "d"})):
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(wrong)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        LogisticRegression().fit(features, target).predict(features.assign(b=np.nan))


@pytest.mark.usefixtures("original")
def test_both_functions_can_be_pickled():
    shorten_input_checks()
    for check in (validation.check_array, sklearn.utils.check_array):
        assert pickle.loads(pickle.dumps(check)) is check


def test_the_installed_version_is_compared():
    assert read_sklearn_version() <= NEWEST, "Compare its functions with the replaced ones, then raise NEWEST."


@pytest.mark.parametrize("version", [f"{NEWEST[0]}.{NEWEST[1] + 1}.0", f"{NEWEST[0] + 1}.0rc1"])
def test_a_newer_version_is_left_as_it_is(original, monkeypatch, version):
    monkeypatch.setattr(sklearn, "__version__", version)
    shorten_input_checks()
    assert all(getattr(validation, name) is check for name, check in original.items())
