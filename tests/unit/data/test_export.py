"""Exporting a table: complete or absent."""

import subprocess
import sys

import pandas as pd
import pytest

from mlapp.data.export import export_table
from mlapp.errors import DataError, UsageError

TABLE = pd.DataFrame({"id": [1, 2], "name": ["Zoë", None], "n": pd.array([1, None], dtype="Int64")})


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_table_and_its_parts_make_the_same_file(name, tmp_path):
    assert export_table(TABLE, tmp_path / name) == 2
    assert export_table(iter([TABLE.head(1), TABLE.tail(1)]), tmp_path / f"parts-{name}") == 2
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    pd.testing.assert_frame_equal(read(tmp_path / name), read(tmp_path / f"parts-{name}"))
    assert read(tmp_path / name)["name"][0] == "Zoë"
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"parts-{name}", name]


def test_a_read_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "t.csv").write_text("old")

    def parts():
        yield TABLE
        raise DataError("The connection broke after 2 rows.", "Start again.")

    with pytest.raises(DataError, match="broke after 2 rows"):
        export_table(parts(), tmp_path / "t.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == "old"


@pytest.mark.needs("pyarrow")
def test_a_full_disk_is_reported_and_leaves_no_half_file(tmp_path):
    """In a mount of its own, of which the process sees one megabyte."""
    code = f"""
import pandas as pd
from mlapp.data.export import export_table
from mlapp.errors import DataError
for name in ("t.csv", "t.parquet"):
    try:
        export_table(pd.DataFrame({{"x": pd.Series(range(600_000)) * 0.37}}), "{tmp_path}/" + name)
    except DataError as error:
        print(error.what)
import os
print(os.listdir("{tmp_path}"))
"""
    command = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0"'
    process = subprocess.run(["unshare", "-rm", "sh", "-c", command, code], capture_output=True, text=True)
    if "Operation not permitted" in process.stderr or "unshare" in process.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    assert process.stdout.splitlines() == [
        f"{tmp_path}/t.csv cannot be written: the disk is full.",
        f"{tmp_path}/t.parquet cannot be written: the disk is full.",
        "[]",
    ], process.stderr


def test_what_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(UsageError, match="neither CSV nor Parquet"):
        export_table(TABLE, tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        export_table(TABLE, tmp_path / "no" / "t.csv")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match="later part of the data has other columns: other"):
            export_table([TABLE, pd.DataFrame({"other": [1]})], tmp_path / name)
    with pytest.raises(DataError, match="later part of the data has different types"):
        export_table([TABLE[["id"]], pd.DataFrame({"id": ["x"]})], tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", [pd.arrays.SparseArray([0.0, 1.0]), pd.Categorical(pd.cut(pd.Series([1, 2]), 2))])
def test_what_parquet_does_not_hold_is_an_error_and_leaves_no_file(tmp_path, column) -> None:
    with pytest.raises(DataError, match="A column of the data cannot be stored as Parquet"):
        export_table(pd.DataFrame({"x": column}), tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def test_bytes_become_base64_in_a_csv(tmp_path) -> None:
    export_table(pd.DataFrame({"x": [b"\xff", b""]}), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == 'x\n/w==\n""\n'
