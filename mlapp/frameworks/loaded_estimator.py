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
"""The child of a leaf in scikit-learn's `Tree`."""
FORESTS = ("sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.ensemble._iforest")
"""Modules of estimators that pass rows to their trees. The trees do not check the number of columns again."""
TREES = ("sklearn.tree._classes",)


@dataclass(frozen=True)
class EstimatorMember:
    """An object inside an estimator.

    Attributes:
        columns: number of columns that its trees receive; None if unknown.
        limit: number of columns of the forest that directly contains it; None if it is not in a forest.
    """

    value: Any
    columns: int | None = None
    limit: int | None = None


def require_sound_loaded_estimator(model: Any, trusted: Sequence[str]) -> None:
    """Check the content of an estimator recursively.

    Raises:
        ModelError: a node of a tree refers to a node or feature that does not exist; an attribute replaces a method of
            scikit-learn, such as the one that checks the number of columns; or, unless its class is in `trusted`, a
            vectorizer opens files that requests name, or a `functools.partial` calls a function that estimators do not
            contain by default.
    """
    for member in _walk_estimator_members(model):
        kind = f"{type(member.value).__module__}.{type(member.value).__qualname__}"
        if kind.startswith("sklearn.") and kind not in trusted:
            _require_own_estimator_methods(member.value)
        if kind == "sklearn.tree._tree.Tree":
            _require_sound_estimator_tree(member)
        elif kind == "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
            _require_sound_loaded_predictor(member)
        elif kind == PARTIAL and kind not in trusted:
            _require_known_estimator_function(member.value.func)
        elif member.value is partial and PARTIAL not in trusted:  # the class itself accepts any function
            raise ModelError(
                f"The model contains types that are not declared trusted: {PARTIAL}.",
                f"If you trust it, declare it: @app.model(trusted=['{PARTIAL}']).",
            )
        elif kind.startswith("sklearn.feature_extraction.text.") and kind not in trusted:
            _require_plain_loaded_vectorizer(member.value, kind)


def _walk_estimator_members(model: Any) -> Iterator[EstimatorMember]:
    visited: set[int] = set()
    pending = [EstimatorMember(model)]
    while pending:
        member = pending.pop()
        if isinstance(member.value, (str, bytes, int, float, type(None))) or id(member.value) in visited:
            continue
        visited.add(id(member.value))
        yield member
        pending.extend(_iterate_loaded_estimator_trees(member))


def _iterate_loaded_estimator_trees(member: EstimatorMember) -> Iterator[EstimatorMember]:
    import numpy as np

    value = member.value
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif isinstance(value, np.ndarray):  # checks the type, because a file can add a `dtype` to an estimator
        parts = np.asarray(value).ravel().tolist() if value.dtype.kind == "O" else []
    elif isinstance(value, partial):
        parts = [value.func, value.args, value.keywords]
    elif isinstance(value, ModuleType):  # SciPy's splines contain a module, which does not come from the file
        return
    else:
        yield from _iterate_estimator_attributes(member)
        return
    yield from (EstimatorMember(part, member.columns, member.limit) for part in parts)


def _iterate_estimator_attributes(member: EstimatorMember) -> Iterator[EstimatorMember]:
    attributes = getattr(member.value, "__dict__", {})
    own_columns, module = attributes.get("n_features_in_"), type(member.value).__module__
    columns, limit = (own_columns if isinstance(own_columns, int) else member.columns), None
    if module in TREES and member.limit is not None:
        columns = min(member.limit, columns or member.limit)
    elif module in FORESTS:
        limit = columns
    yield from (EstimatorMember(part, columns, limit) for part in attributes.values())


def _require_sound_estimator_tree(member: EstimatorMember) -> None:
    import numpy as np

    nodes = member.value.__getstate__()["nodes"]
    left, right = nodes["left_child"].astype(np.int64), nodes["right_child"].astype(np.int64)
    inner = left != LEAF
    if not len(nodes) or not is_tree_walk_finite(np.concatenate([left[inner], right[inner]]), len(nodes)):
        raise damaged_tree_error()
    columns = member.value.n_features if member.columns is None else min(member.value.n_features, member.columns)
    if not are_tree_numbers_within(nodes["feature"].astype(np.int64)[inner], columns):
        raise damaged_tree_error()


def _require_sound_loaded_predictor(member: EstimatorMember) -> None:
    import numpy as np

    nodes = member.value.nodes
    inner = nodes["is_leaf"] == 0
    children = np.concatenate([nodes["left"], nodes["right"]]).astype(np.int64)[np.concatenate([inner, inner])]
    if not len(nodes) or not is_tree_walk_finite(children, len(nodes)):
        raise damaged_tree_error()
    if not are_tree_numbers_within(nodes["feature_idx"].astype(np.int64)[inner], member.columns):
        raise damaged_tree_error()
    bitsets = nodes["bitset_idx"].astype(np.int64)[inner & (nodes["is_categorical"] != 0)]
    if not are_tree_numbers_within(
        bitsets, min(len(member.value.raw_left_cat_bitsets), len(member.value.binned_left_cat_bitsets))
    ):
        raise damaged_tree_error()


def _require_known_estimator_function(function: Any) -> None:
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    if name not in FUNCTIONS or resolve_trusted_name(name) is not function:  # an object can have the name of another
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
