"""Checks the structure of decision trees from a file.

XGBoost, LightGBM and scikit-learn follow node numbers without checking their bounds: an invalid number in a file
crashes the process, or reads unrelated memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlapp.errors import ModelError

UNTIL_TREES = "\nTree="
AFTER_TREES = "\nend of trees\n"


def damaged_tree_error(
    problem: str = "A tree in the model refers to a node or a feature that does not exist.",
) -> ModelError:
    """The error for a model with a damaged structure."""
    return ModelError(problem, "The file is damaged or malicious: restore it from a backup, or train again.")


def is_tree_walk_finite(children: Any, count: int) -> bool:
    """Whether each walk from the root, node 0, ends and stays within bounds.

    Args:
        children: the numbers of all children of inner nodes, in one array. Each node has at most one parent.
        count: number of nodes.
    """
    import numpy as np

    return not children.size or bool(
        children.min() > 0 and children.max() < count and len(np.unique(children)) == children.size
    )


def are_tree_numbers_within(numbers: Any, count: int | None) -> bool:
    """Whether all numbers are at least 0 and less than `count`; None means no bound."""
    return not numbers.size or bool(numbers.min() >= 0 and (count is None or numbers.max() < count))


def require_sound_xgboost_trees(booster: Any) -> None:
    """Check the trees in an XGBoost booster's JSON.

    Raises:
        ModelError: a tree refers to a node, a feature or an output that does not exist.
    """
    learner = json.loads(booster.save_raw("json").decode())["learner"]
    parameters = learner["learner_model_param"]
    columns = int(parameters["num_feature"])
    outputs = max(1, int(parameters["num_class"]), int(parameters.get("num_target", 1)))
    for model in _iterate_xgboost_models(learner["gradient_booster"]):
        trees = model.get("trees")
        if trees is None:
            if len(model.get("weights", [])) != (columns + 1) * outputs:
                raise damaged_tree_error("The linear model's number of weights does not match its features.")
            continue
        bounds = model.get("iteration_indptr", [0])
        if len(model["tree_info"]) != len(trees) or any(not 0 <= at < outputs for at in model["tree_info"]):
            raise damaged_tree_error("A tree in the model belongs to an output that does not exist.")
        if bounds[0] != 0 or bounds != sorted(bounds) or bounds[-1] > len(trees):
            raise damaged_tree_error("The rounds of the model refer to trees that do not exist.")
        for tree in trees:
            _require_sound_xgboost_tree(tree, columns)


def _iterate_xgboost_models(booster: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The models in a gradient booster: the booster itself, or the trees inside a DART booster."""
    if "gbtree" in booster:
        if len(booster["weight_drop"]) != len(booster["gbtree"]["model"]["trees"]):
            raise damaged_tree_error("The model's number of weights does not match its trees.")
        yield booster["gbtree"]["model"]
    else:
        yield booster["model"]


def _require_sound_xgboost_tree(tree: Mapping[str, Any], columns: int) -> None:
    import numpy as np

    left, right = np.array(tree["left_children"], np.int64), np.array(tree["right_children"], np.int64)
    features = np.array(tree["split_indices"], np.int64)
    inner = left != -1
    if not len(left) == len(right) == len(features) == int(tree["tree_param"]["num_nodes"]) > 0:
        raise damaged_tree_error()
    if not is_tree_walk_finite(np.concatenate([left[inner], right[inner]]), len(left)):
        raise damaged_tree_error()
    if not are_tree_numbers_within(features[inner], columns):
        raise damaged_tree_error()
    first, sizes = np.array(tree["categories_segments"], np.int64), np.array(tree["categories_sizes"], np.int64)
    ends = first + sizes
    if not (
        are_tree_numbers_within(first, None)
        and are_tree_numbers_within(sizes, None)
        and are_tree_numbers_within(ends, len(tree["categories"]) + 1)
    ):
        raise damaged_tree_error("A tree in the model refers to categories that do not exist.")


def require_sound_lightgbm_trees(text: str) -> None:
    """Check the trees of a LightGBM model's text.

    Raises:
        ModelError: a tree refers to a node, a feature or an output that does not exist.
    """
    header, _, trees = text.partition(AFTER_TREES)[0].partition(UNTIL_TREES)
    fields = dict(line.partition("=")[::2] for line in header.splitlines())
    try:
        columns, outputs = int(fields["max_feature_idx"]) + 1, int(fields["num_tree_per_iteration"])
        class_counts = [
            int(fields["num_class"]),
            *map(int, re.findall(r"\bnum_class:(\d+)", fields.get("objective", ""))),
        ]
        sizes = [int(size) for size in fields["tree_sizes"].split()]
        blocks = [f"Tree={block}" for block in trees.split(UNTIL_TREES)] if sizes else []
        if set(class_counts) != {outputs} or len(blocks) % outputs:
            raise damaged_tree_error("The model's number of outputs does not match its trees.")
        # LightGBM uses these sizes for reading. They are in bytes, and include line feeds.
        if len(sizes) != len(blocks) or any(
            len(block.strip("\n").encode()) > size or size > len(block.encode()) + 3
            for size, block in zip(sizes, blocks, strict=True)
        ):
            raise damaged_tree_error("The sizes of the model's trees are wrong.")
        for block in blocks:
            _require_sound_lightgbm_tree(dict(line.partition("=")[::2] for line in block.splitlines()), columns)
    except (KeyError, ValueError) as error:
        raise damaged_tree_error(f"The trees of the model cannot be read: {error}.") from error


def _require_sound_lightgbm_tree(tree: Mapping[str, str], columns: int) -> None:
    import numpy as np

    leaves, categorical = int(tree["num_leaves"]), int(tree["num_cat"])
    lengths = {"leaf_value": leaves}
    if leaves > 1:
        required = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
        optional = ("split_gain", "internal_value", "internal_weight", "internal_count")
        lengths |= {name: leaves for name in ("leaf_weight", "leaf_count") if tree.get(name)}
        lengths |= dict.fromkeys((*required, *(name for name in optional if tree.get(name))), leaves - 1)
    if leaves < 1 or any(len(tree[name].split()) != length for name, length in lengths.items()):
        raise damaged_tree_error()
    if leaves == 1:
        return
    children = _parse_tree_numbers(tree["left_child"] + " " + tree["right_child"])
    is_leaf = children < 0
    leaf_numbers = ~children[is_leaf]
    if not is_tree_walk_finite(children[~is_leaf], leaves - 1) or not are_tree_numbers_within(leaf_numbers, leaves):
        raise damaged_tree_error()
    if not are_tree_numbers_within(_parse_tree_numbers(tree["split_feature"]), columns):
        raise damaged_tree_error()
    is_categorical = _parse_tree_numbers(tree["decision_type"]) & 1 == 1
    category_numbers = np.array([float(value) for value in tree["threshold"].split()])[is_categorical]
    if not are_tree_numbers_within(category_numbers, categorical):
        raise damaged_tree_error("A tree in the model refers to categories that do not exist.")
    if categorical:
        bounds, words = _parse_tree_numbers(tree["cat_boundaries"]), tree["cat_threshold"].split()
        is_sorted = len(bounds) == categorical + 1 and bounds[0] == 0 and bool((np.diff(bounds) >= 0).all())
        if not is_sorted or bounds[-1] != len(words):
            raise damaged_tree_error("A tree in the model refers to categories that do not exist.")
    if not are_tree_numbers_within(_parse_tree_numbers(tree.get("leaf_features", "")), columns):
        raise damaged_tree_error()


def _parse_tree_numbers(text: str) -> Any:
    import numpy as np

    return np.array([int(word) for word in text.split()], np.int64)
