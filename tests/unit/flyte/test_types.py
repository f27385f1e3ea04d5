"""Data between tasks is unchanged, and pickles are opt-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp.errors import DataError, UsageError
from mlapp.flyte import data_folder
from mlapp.flyte.data_folder import Identity
from mlapp.pipeline.stage import ROLES, make_stage

IDENTITY = Identity("abc", 3, 2)


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": [1, 2, 3],
            "share": [0.5, None, 1.5],
            "text": ["a", None, "c"],
            "kind": pd.Categorical(["x", "y", "x"], categories=["y", "x", "z"]),
            "when": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
            "small": np.array([1, 2, 3], dtype="int8"),
            "flag": [True, False, True],
        },
        index=[7, 3, 9],
    )


def round_trip(folder: Path, **values: Any) -> dict[str, Any]:
    data_folder.write_folder_values(folder, values, IDENTITY)
    back, identity = data_folder.read_folder_values(folder)
    assert identity == IDENTITY
    assert not list(folder.glob("*.pkl"))
    return back


def test_splits_keep_order_types_and_index(tmp_path: Path) -> None:
    back = round_trip(tmp_path, train=table(), test=table().head(1), odd=table().iloc[1:])
    assert list(back) == ["train", "test", "odd"]
    pd.testing.assert_frame_equal(back["train"], table())
    pd.testing.assert_frame_equal(data_folder.read_folder_value(tmp_path, "odd"), table().iloc[1:])
    assert (tmp_path / "train.parquet").is_file()


def test_columns_may_be_numbers(tmp_path: Path) -> None:
    numbered = pd.DataFrame(np.eye(3))
    pd.testing.assert_frame_equal(round_trip(tmp_path, train=numbered)["train"], numbered)


def test_arrays_and_plain_values_travel_too(tmp_path: Path) -> None:
    pair = (np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
    back = round_trip(tmp_path, pair=pair, texts=["a", "b"], named={"x": np.ones(2), "y": np.zeros(2)})
    assert isinstance(back["pair"], tuple)
    np.testing.assert_array_equal(back["pair"][0], pair[0])
    assert back["texts"] == ["a", "b"]
    np.testing.assert_array_equal(back["named"]["y"], np.zeros(2))


def test_a_column_of_mixed_types_is_named(tmp_path: Path) -> None:
    mixed = pd.DataFrame({"age": [1, "two", 3.0]}, dtype=object)
    with pytest.raises(DataError, match=r"'train' cannot be written as Parquet.*age"):
        data_folder.write_folder_values(tmp_path, {"train": mixed}, IDENTITY)


def test_what_has_no_format_needs_the_opt_in(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'train' is a builtins\.set, which has no format") as raised:
        data_folder.write_folder_values(tmp_path, {"train": {1, 2}}, IDENTITY)
    assert "flyte: {pickle: true}" in raised.value.todo
    data_folder.write_folder_values(tmp_path, {"train": {1, 2}}, IDENTITY, pickle=True)
    assert data_folder.read_folder_values(tmp_path)[0] == {"train": {1, 2}}


class Corpus:
    pass


@pytest.mark.parametrize("kind", [pd.DataFrame, tuple[np.ndarray, list[str]], dict[str, pd.DataFrame], Any, None])
def test_an_annotation_of_what_travels(kind: Any) -> None:
    def load(data: Any) -> Any: ...

    load.__annotations__["return"] = kind
    data_folder.check_folder_annotation(make_stage(ROLES["data_loader"], load, has_target=True))


@pytest.mark.parametrize("kind", [Corpus, dict[str, Corpus], Corpus | None])
def test_an_annotation_that_flyte_cannot_carry_is_reported_before_anything_runs(kind: Any) -> None:
    def load(data: Any) -> Any: ...

    load.__annotations__["return"] = kind
    with pytest.raises(UsageError, match=r"data_loader 'load' in .* returns a Corpus, which Flyte cannot") as raised:
        data_folder.check_folder_annotation(make_stage(ROLES["data_loader"], load, has_target=True))
    assert "flyte: {pickle: true}" in raised.value.todo


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "other")]
    for folder, rows in zip(folders, (3, 3, 2), strict=True):
        folder.mkdir()
        data_folder.write_folder_values(folder, {"train": table().head(rows)}, IDENTITY)
    first, second, other = map(data_folder.hash_folder, folders)
    assert first == second != other


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({0: [1.0, 2.0], "b": ["x", "y"]}),
        pd.DataFrame([[1, "x"]], columns=["a", "a"]),
        pd.DataFrame({"vector": [[1.0, 2.0], None, []], "nested": [[[1], [2, 3]], [[4]], []]}),
        pd.DataFrame({"pair": [(1, 2), (3, 4)]}, index=[5, 2]),
        pd.DataFrame({"sparse": pd.arrays.SparseArray([0.0, 1.5, 0.0]), "dense": [1, 2, 3]}),
        pd.DataFrame({"gaps": pd.arrays.SparseArray([np.nan, 1.5])}),
        pd.DataFrame({"counts": pd.arrays.SparseArray([0, 3], dtype=pd.SparseDtype("int32", 0))}),
        pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])),
    ],
    ids=["mixed labels", "repeated labels", "lists", "tuples", "sparse", "sparse gaps", "sparse ints", "two levels"],
)
def test_what_parquet_loses_of_a_table_is_restored(frame: pd.DataFrame, tmp_path: Path) -> None:
    back = round_trip(tmp_path, train=frame)["train"]
    pd.testing.assert_frame_equal(back, frame)
    assert [type(cell) for cell in back.iloc[:, 0]] == [type(cell) for cell in frame.iloc[:, 0]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({pd.Timestamp("2026-01-01"): [1], "b": [2]}), "column label"),
        (pd.DataFrame({"z": [1 + 2j]}), "Parquet"),
        (pd.DataFrame({"bins": pd.cut([1, 2], [0, 1, 2])}), "Parquet"),
    ],
    ids=["times as labels", "complex", "intervals"],
)
def test_what_cannot_travel_is_named(frame: pd.DataFrame, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as refused:
        data_folder.write_folder_values(tmp_path, {"train": frame}, IDENTITY)
    assert "'train'" in refused.value.what
