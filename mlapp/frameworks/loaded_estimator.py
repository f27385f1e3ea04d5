"""Checks the content of a scikit-learn estimator from a file, beyond the check of its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from mlapp.errors import ModelError
from mlapp.frameworks.tree_structure import are_tree_numbers_within, damaged_tree_error, is_tree_walk_finite
from mlapp.frameworks.trusted_types import FUNCTIONS, PARTIAL, resolve_trusted_name

LEAF = -1
"""What scikit-learn's `Tree` has for the children of a leaf."""
FORESTS = ("sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest")
"""Modules of estimators that give rows to their trees, which do not check the number of columns again."""
TREES = ("sklearn.tree._classes",)


@dataclass(frozen=True)
class Held:
    """An object inside an estimator.

    Attributes:
        columns: number of columns that its trees receive; None if unknown.
        limit: number of columns of the forest that directly contains it.
    """

    value: Any
    columns: int | None = None
    limit: int | None = None


def require_sound_loaded_estimator(model: Any, trusted: Sequence[str]) -> None:
    """Check the content of an estimator recursively.

    Raises:
        ModelError: a node of a tree refers to a node or a feature that does not exist; a vectorizer, of a class
            that is not in `trusted`, opens files that a request names; a `functools.partial`, which is not in
            `trusted`, calls anything but the functions that estimators hold by default; or an attribute hides a method
            of scikit-learn, which may be the one that checks the number of columns.
    """
    for held in _walk_estimator_members(model):
        kind = f"{type(held.value).__module__}.{type(held.value).__qualname__}"
        if kind.startswith("sklearn.") and kind not in trusted:
            _require_own_estimator_methods(held.value)
        if kind == "sklearn.tree._tree.Tree":
            _require_sound_estimator_tree(held)
        elif kind == "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
            _require_sound_loaded_predictor(held)
        elif kind == PARTIAL and kind not in trusted:
            _require_known_estimator_function(held.value.func)
        elif held.value is partial and PARTIAL not in trusted:  # the class, which would take any function
            raise ModelError(
                f"The model contains types that are not declared trusted: {PARTIAL}.",
                f"If you trust it, declare it: @app.model(trusted=['{PARTIAL}']).",
            )
        elif kind.startswith("sklearn.feature_extraction.text.") and kind not in trusted:
            _require_plain_loaded_vectorizer(held.value, kind)


def _walk_estimator_members(model: Any) -> Iterator[Held]:
    seen: set[int] = set()
    waiting = [Held(model)]
    while waiting:
        held = waiting.pop()
        if isinstance(held.value, (str, bytes, int, float, type(None))) or id(held.value) in seen:
            continue
        seen.add(id(held.value))
        yield held
        waiting.extend(_iterate_loaded_estimator_trees(held))


def _iterate_loaded_estimator_trees(held: Held) -> Iterator[Held]:
    import numpy as np

    value = held.value
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif isinstance(value, np.ndarray):  # a `dtype` alone proves nothing: a file can give an estimator one
        parts = np.asarray(value).ravel().tolist() if value.dtype.kind == "O" else []
    elif isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, ModuleType):  # SciPy's splines hold one; nothing in it comes from a file
        return
    else:
        yield from _iterate_estimator_attributes(held)
        return
    yield from (Held(part, held.columns, held.limit) for part in parts)


def _iterate_estimator_attributes(held: Held) -> Iterator[Held]:
    attributes = getattr(held.value, "__dict__", {})
    own, module = attributes.get("n_features_in_"), type(held.value).__module__
    columns, limit = (own if isinstance(own, int) else held.columns), None
    if module in TREES and held.limit is not None:
        columns = min(held.limit, columns or held.limit)
    elif module in FORESTS:
        limit = columns
    yield from (Held(part, columns, limit) for part in attributes.values())


def _require_sound_estimator_tree(held: Held) -> None:
    import numpy as np

    nodes = held.value.__getstate__()["nodes"]
    left, right = nodes["left_child"].astype(np.int64), nodes["right_child"].astype(np.int64)
    inner = left != LEAF
    if not len(nodes) or not is_tree_walk_finite(np.concatenate([left[inner], right[inner]]), len(nodes)):
        raise damaged_tree_error()
    columns = held.value.n_features if held.columns is None else min(held.value.n_features, held.columns)
    if not are_tree_numbers_within(nodes["feature"].astype(np.int64)[inner], columns):
        raise damaged_tree_error()


def _require_sound_loaded_predictor(held: Held) -> None:
    import numpy as np

    nodes = held.value.nodes
    inner = nodes["is_leaf"] == 0
    children = np.concatenate([nodes["left"], nodes["right"]]).astype(np.int64)[np.concatenate([inner, inner])]
    if not len(nodes) or not is_tree_walk_finite(children, len(nodes)):
        raise damaged_tree_error()
    if not are_tree_numbers_within(nodes["feature_idx"].astype(np.int64)[inner], held.columns):
        raise damaged_tree_error()
    sets = nodes["bitset_idx"].astype(np.int64)[inner & (nodes["is_categorical"] != 0)]
    if not are_tree_numbers_within(
        sets, min(len(held.value.raw_left_cat_bitsets), len(held.value.binned_left_cat_bitsets))
    ):
        raise damaged_tree_error()


def _require_known_estimator_function(function: Any) -> None:
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    if name not in FUNCTIONS or resolve_trusted_name(name) is not function:  # an object can claim to be one of them
        raise ModelError(
            f"The model contains types that are not declared trusted: a {PARTIAL} of {name}.",
            f"If you trust it, declare it: @app.model(trusted=['{PARTIAL}', '{name}']).",
        )


def _require_own_estimator_methods(value: Any) -> None:
    for name in getattr(value, "__dict__", {}):
        if callable(getattr(type(value), name, None)):
            raise damaged_tree_error()


def _require_plain_loaded_vectorizer(vectorizer: Any, kind: str) -> None:
    if getattr(vectorizer, "input", "content") != "content":
        raise ModelError(
            f"The model contains a {type(vectorizer).__name__} that opens files named by requests.",
            f"If you want this, declare it: @app.model(trusted=['{kind}']).",
        )
