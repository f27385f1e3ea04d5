"""A skops file is data: its types are trusted by identity, and its content cannot end the process."""

from __future__ import annotations

import functools
import io as streams
import json
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import Bunch, all_estimators
from skops import io

from mlapp.errors import ModelError
from mlapp.frameworks.sklearn import SklearnFramework
from mlapp.frameworks.trusted_types import is_trusted_type

ROWS = np.random.default_rng(0).random((40, 4))
CLASSES = (ROWS[:, 0] > 0.5).astype(int) ^ (ROWS[:, 1] > 0.5)


def load(file: Path, *trusted: str) -> Any:
    return SklearnFramework().load_file(file, trusted)


def genuine_file_with(node: dict[str, Any], file: Path) -> Path:
    """A model that skops wrote, in which one attribute is replaced by what an attacker made up."""
    content = io.dumps(LogisticRegression().fit(ROWS, CLASSES))
    with zipfile.ZipFile(streams.BytesIO(content)) as source, zipfile.ZipFile(file, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "schema.json":
                schema = json.loads(data)
                schema["content"]["content"]["verbose"] = node
                data = json.dumps(schema).encode()
            target.writestr(name, data)
    return file


def text(value: Any) -> dict[str, Any]:
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


def call_of(module: str, name: str, *arguments: Any) -> dict[str, Any]:
    """A node that calls `module.name` while the file is loaded."""
    content = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"}
    return {
        "__class__": name,
        "__module__": module,
        "__loader__": "ConstructorFromReduceNode",
        "content": {**content, "content": [text(value) for value in arguments]},
    }


@pytest.mark.parametrize("module", ["sklearn.datasets._covtype", "gzip"])
def test_a_name_that_scikit_learn_re_exports_is_not_scikit_learns(module: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    file = genuine_file_with(call_of(module, "GzipFile", str(victim), "wb"), tmp_path / "model.skops")
    with pytest.raises(ModelError, match=rf"not declared trusted: {module}.GzipFile"):
        load(file)
    assert victim.read_text() == "precious"


def test_no_function_is_reached_through_a_constructor_that_scikit_learn_re_exports(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    node = {
        "__class__": "partial",
        "__module__": "sklearn.utils._array_api",
        "__loader__": "ObjectNode",
        "content": call_of("sklearn.utils.multiclass", "chain", [f"open({str(ran)!r}, 'w')"]),
    }
    with pytest.raises(ModelError, match=r"sklearn.utils._array_api.partial, sklearn.utils.multiclass.chain"):
        load(genuine_file_with(node, tmp_path / "model.skops"))
    assert not ran.exists()


def test_histogram_boosting_of_categories_needs_no_declaration(tmp_path: Path) -> None:
    table = pd.DataFrame({"size": pd.Categorical(["S", "M"] * 20)})
    model = HistGradientBoostingClassifier(max_iter=1, categorical_features="from_dtype").fit(table, [0, 1] * 20)
    io.dump(model, tmp_path / "model.skops")
    assert load(tmp_path / "model.skops").predict(table[:2]).tolist() == model.predict(table[:2]).tolist()


def test_the_class_of_partials_is_no_function_of_an_estimator(tmp_path: Path) -> None:
    io.dump(FunctionTransformer(functools.partial), tmp_path / "model.skops")
    with pytest.raises(ModelError, match="not declared trusted: functools.partial"):
        SklearnFramework().load_file(tmp_path / "model.skops", [])
    assert SklearnFramework().load_file(tmp_path / "model.skops", ["functools.partial"]).func is functools.partial


def test_a_partial_of_another_function_needs_a_declaration(tmp_path: Path) -> None:
    io.dump(FunctionTransformer(functools.partial(accuracy_score, normalize=False)), tmp_path / "model.skops")
    with pytest.raises(ModelError, match="a functools.partial of .*accuracy_score") as raised:
        load(tmp_path / "model.skops")
    assert "trusted=['functools.partial', 'sklearn.metrics" in raised.value.todo


def test_an_encoder_of_intervals_needs_no_declaration(tmp_path: Path) -> None:
    table = pd.DataFrame({"bin": pd.cut(pd.Series(range(9)), 3)})
    io.dump(OneHotEncoder().fit(table), tmp_path / "model.skops")
    assert load(tmp_path / "model.skops").transform(table).sum() == 9


def test_an_encoder_of_times_with_a_zone_says_what_to_do_instead(tmp_path: Path) -> None:
    times = pd.DataFrame({"when": pd.Categorical(pd.date_range("2026-01-01", periods=3, tz="Europe/Zurich"))})
    with pytest.raises(ModelError, match="times with a time zone") as refused:
        SklearnFramework().save(OneHotEncoder().fit(times), tmp_path, "skops", [f"{pd.Timestamp.__module__}.Timestamp"])
    assert "format='joblib'" in refused.value.todo


def test_a_selector_of_columns_by_their_type_needs_no_declaration(tmp_path: Path) -> None:
    numbers, texts = (make_column_selector(dtype_include=kind) for kind in (np.number, [object, np.integer]))
    estimator = make_column_transformer((OneHotEncoder(), texts), ("passthrough", numbers))
    SklearnFramework().save(estimator, tmp_path, "skops", ())
    assert SklearnFramework().load(tmp_path, "skops", ()).transformers[1][2].dtype_include is np.number


def test_nothing_of_another_package_is_trusted_under_a_name_of_scikit_learn() -> None:
    foreign = [
        f"{name}.{attribute}"
        for name, module in sys.modules.copy().items()
        if name.startswith("sklearn.") and module is not None
        for attribute, value in vars(module).items()
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType))
        and not str(value.__module__).startswith("sklearn.")
    ]
    assert {name.rpartition(".")[2] for name in foreign} >= {"partial", "chain", "islice", "GzipFile", "attrgetter"}
    assert [name for name in foreign if is_trusted_type(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.datasets._base.fetch_file",  # a function of its own that fetches
        "sklearn.linear_model.LogisticRegression",  # another place of the same class: skops writes where it is defined
        "sklearn.metrics._dist_metrics.PyFuncDistance64",  # calls what it holds
        "numpy.memmap",
        "numpy.load",
        "os.system",
        "sklearn.no_such_module.Thing",
        "sklearn",
        "",
    ],
)
def test_a_name_is_trusted_only_where_an_estimator_or_the_list_has_it(name: str) -> None:
    assert not is_trusted_type(name)


def test_every_estimator_of_scikit_learn_that_can_be_fitted_and_dumped_loads_again(tmp_path: Path) -> None:
    """Legitimate files must keep working; Birch is what skops itself refuses."""
    loaded, refused = [], []
    for number, (name, kind) in enumerate(all_estimators()):
        estimator = _fitted(kind)
        if estimator is None:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            SklearnFramework().save(estimator, folder, "skops", ())
            again = SklearnFramework().load(folder, "skops", ())
        except ModelError as error:
            refused.append((name, error.what))
            continue
        assert type(again) is kind
        loaded.append(name)
    assert [name for name, _ in refused] == ["Birch"], refused
    assert len(loaded) > 190


def _fitted(kind: type) -> Any:
    """An instance that fits a small table, or None: scikit-learn's own tests say how each is constructed."""
    from sklearn.utils._test_common.instance_generator import _construct_instances

    inputs = [(ROWS, CLASSES), (ROWS, ROWS @ np.arange(4.0)), (ROWS, np.c_[CLASSES, CLASSES]), (ROWS,), (CLASSES,)]
    inputs += [(ROWS[:, 0], CLASSES), (["a b", "b c"] * 20,), ([{"a": 1}] * 20,), (ROWS[:, :2], ROWS[:, 2:])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given in inputs:
            try:
                return next(iter(_construct_instances(kind))).fit(*given)
            except Exception:
                continue
    return None


def _set_node(estimator: Any, **values: int) -> None:
    state = estimator.tree_.__getstate__()
    for name, value in values.items():
        state["nodes"][name][0] = value
    estimator.tree_.__setstate__(state)


def _tree(**values: int) -> Any:
    tree = DecisionTreeClassifier().fit(ROWS, CLASSES)
    _set_node(tree, **values)
    return tree


def _narrow_forest() -> Any:
    forest = RandomForestClassifier(2).fit(np.c_[np.zeros((40, 9)), ROWS], CLASSES)
    forest.n_features_in_ = 1
    return forest


def _isolating() -> Any:
    forest = IsolationForest(n_estimators=2).fit(ROWS)
    _set_node(forest.estimators_[1], right_child=10**8)
    return forest


def _boosted(**values: int) -> Any:
    model = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2).fit(ROWS, CLASSES)
    for name, value in values.items():
        model._predictors[1][0].nodes[name][0] = value
    return model


MODELS = {
    "a child out of bounds": lambda: _tree(left_child=10**8),
    "a child that is its own parent": lambda: _tree(right_child=0),
    "a negative child": lambda: _tree(left_child=-7),
    "a feature that no row has": lambda: _tree(feature=10**8),
    "a forest whose trees know more features": _narrow_forest,
    "a tree inside a pipeline": lambda: make_pipeline(_isolating()),
    "boosting: a child out of bounds": lambda: _boosted(left=2 * 10**9),
    "boosting: a feature that no row has": lambda: _boosted(feature_idx=10**6),
    "boosting: a set of categories that does not exist": lambda: _boosted(is_categorical=1, bitset_idx=10**6),
}


@pytest.mark.parametrize("trick", MODELS)
def test_a_tree_that_would_end_the_process_is_refused(trick: str, tmp_path: Path) -> None:
    io.dump(MODELS[trick](), tmp_path / "model.skops")
    with pytest.raises(ModelError, match="refers to a node or a feature that does not exist"):
        load(tmp_path / "model.skops")


def test_no_attribute_hides_trees_or_the_check_of_the_columns(tmp_path: Path) -> None:
    none = functools.partial(np.max, np.zeros((1, 0)), 0)  # gives an empty array to who calls it without arguments
    for hidden in ({"dtype": Bunch(kind="O"), "ravel": none}, {"_validate_X_predict": np.median}):
        forest = RandomForestClassifier(2, random_state=0).fit(ROWS, CLASSES)
        if "dtype" in hidden:
            forest.estimators_[1] = _tree(left_child=10**6)
        forest.__dict__.update(hidden)
        (tmp_path / "model.skops").write_bytes(io.dumps(forest))
        with pytest.raises(ModelError):
            load(tmp_path / "model.skops")


def test_a_partial_is_of_a_function_and_not_of_what_claims_to_be_one(tmp_path: Path) -> None:
    kernel = RBF()
    kernel.__dict__.update({"__module__": "numpy", "__qualname__": "mean"})
    model = FunctionTransformer(functools.partial(kernel)).fit(ROWS)
    (tmp_path / "model.skops").write_bytes(io.dumps(model))
    with pytest.raises(ModelError, match=r"a functools.partial of numpy.mean"):
        load(tmp_path / "model.skops")


def test_a_vectorizer_that_opens_files_needs_a_declaration(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("some words")
    io.dump(CountVectorizer(input="filename").fit([file]), tmp_path / "model.skops")
    with pytest.raises(ModelError, match="opens files named by requests"):
        load(tmp_path / "model.skops")
    kind = "sklearn.feature_extraction.text.CountVectorizer"
    assert load(tmp_path / "model.skops", kind).transform([file]).sum() == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04cos\nsystem\n."])
def test_a_file_that_is_no_skops_file_is_an_error_of_two_lines(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path / "model.skops")
