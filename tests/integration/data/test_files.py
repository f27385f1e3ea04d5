"""Reading files of every format, from this machine and from a web server."""

import datetime
import functools
import gzip
import http.server
import inspect
import threading

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from mlapp.data import files
from mlapp.errors import DataError, DeclarationError, UsageError

TABLE = pd.DataFrame({
    "id": [1, 2, 3],
    "name": ["Zoë", None, "x, y"],
    "visits": pd.array([10, None, 30], dtype="Int64"),
    "day": pd.to_datetime(["2026-01-01", None, "2026-01-03"]).astype("datetime64[us]"),
    "paid": pd.array([True, None, False], dtype="boolean"),
})  # fmt: skip

WRITERS = {
    "t.csv": lambda file: TABLE.to_csv(file, index=False),
    "t.csv.gz": lambda file: TABLE.to_csv(file, index=False),
    "t.tsv": lambda file: TABLE.to_csv(file, index=False, sep="\t"),
    "semicolons.csv": lambda file: TABLE.to_csv(file, index=False, sep=";"),
    "utf16.csv": lambda file: TABLE.to_csv(file, index=False, encoding="utf-16"),
    "bom.csv": lambda file: TABLE.to_csv(file, index=False, encoding="utf-8-sig"),
    "t.parquet": lambda file: TABLE.to_parquet(file, index=False),
    "t.jsonl": lambda file: TABLE.to_json(file, orient="records", lines=True, date_format="iso"),
    "t.json": lambda file: TABLE.to_json(file, orient="records", date_format="iso"),
    "t.feather": lambda file: feather.write_feather(pa.Table.from_pandas(TABLE), str(file)),
    "t.xlsx": lambda file: TABLE.to_excel(file, index=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_with_its_types(name, tmp_path):
    file = tmp_path / name
    WRITERS[name](file)
    read = files.read(file, types={"day": "datetime64[us]"})
    assert read.dtypes.astype(str).to_dict() == {
        "id": "int64", "name": str(TABLE["name"].dtype), "visits": "Int64", "day": "datetime64[us]", "paid": "boolean",
    }  # fmt: skip
    pd.testing.assert_frame_equal(read, TABLE)
    assert [len(part) for part in files.read(file, chunks=2)] == [2, 1]
    assert list(files.read(file, columns=["day", "id"]).columns) == ["day", "id"]


def test_an_arrow_stream_is_read(tmp_path):
    with pa.ipc.new_stream(tmp_path / "t.arrow", pa.Table.from_pandas(TABLE).schema) as stream:
        stream.write(pa.Table.from_pandas(TABLE))
    assert len(files.read(tmp_path / "t.arrow")) == 3


def test_nested_json_becomes_columns(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"id": 1, "at": {"city": "Rome", "geo": {"lat": 41.9}}}\n{"id": 2}\n')
    read = files.read(tmp_path / "t.jsonl")
    assert list(read.columns) == ["id", "at.city", "at.geo.lat"]
    assert read["at.city"].to_list()[0] == "Rome"


def test_text_that_looks_like_a_number_stays_text_when_asked(tmp_path):
    (tmp_path / "t.csv").write_text("code,plan\n007,a\n010,b\n")
    read = files.read(tmp_path / "t.csv", types={"code": "str", "plan": "category"})
    assert read["code"].to_list() == ["007", "010"]
    assert list(read["plan"].cat.categories) == ["a", "b"]


def test_a_sheet_is_chosen_by_its_name(tmp_path):
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        TABLE.to_excel(book, sheet_name="first", index=False)
        pd.DataFrame({"a": [1.5]}).to_excel(book, sheet_name="second", index=False)
    assert files.read(tmp_path / "t.xlsx", sheet="second")["a"].to_list() == [1.5]
    assert files.read(tmp_path / "t.xlsx", sheet=1)["a"].to_list() == [1.5]
    with pytest.raises(DataError, match=r"t.xlsx has no sheet 'secund'. Did you mean 'second'"):
        files.read(tmp_path / "t.xlsx", sheet="secund")


@pytest.fixture
def days(tmp_path):
    for day in ("2026-01-01", "2026-01-02"):
        for part in ("a", "b"):
            folder = tmp_path / f"day={day}" / "region=7"
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame({"id": [int(day[-2:])], "part": [part]}).to_parquet(folder / f"{part}.parquet")
        (folder / "_SUCCESS").touch()
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "day=*/*/*.parquet", "**/*.parquet", "day=2026-01-0?/region=*/[ab].parquet"])
def test_patterns_and_folders_are_read_in_order_with_their_partitions(days, pattern):
    read = files.read(days / pattern)
    assert read["part"].to_list() == ["a", "b", "a", "b"]
    assert read["id"].to_list() == [1, 1, 2, 2]
    assert (str(read["day"].dtype), str(read["region"].dtype)) == ("datetime64[us]", "int64")
    assert list(files.read(days / pattern, columns=["day", "id"]).columns) == ["day", "id"]


def test_a_path_is_relative_to_the_working_folder(days, monkeypatch):
    monkeypatch.chdir(days)
    assert len(files.read("day=*/region=7/*.parquet")) == 4
    assert len(files.read("**/a.parquet")) == 2


def test_the_reader_of_a_source_has_the_paths_parameters(days):
    read = files.source(f"{days}/day={{day}}/**/*.parquet", day=datetime.date, chunks=None)
    assert inspect.signature(read).parameters["day"].annotation is datetime.date
    assert read(day=datetime.date(2026, 1, 2))["id"].to_list() == [2, 2]
    assert read.__name__ == "read_files"
    with pytest.raises(DeclarationError, match=r"'day', which has no type"):
        files.source("day={day}/x.csv")
    with pytest.raises(DeclarationError, match=r"'colums' is not a parameter of the path. Did you mean 'columns'"):
        files.source("x.csv", colums=["a"])
    with pytest.raises(UsageError, match="'dey' is not a parameter of the path"):
        files.read("x.csv", dey=1)


def test_a_row_of_the_wrong_length_is_named_by_its_line(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n1,2\n"3\n4",5\n6,7,8\n9,10\n')
    for chunks in (None, 10):
        with pytest.raises(DataError, match=r"t.csv, line 5 has 3 fields, where the header has 2"):
            list(files.read(tmp_path / "t.csv", chunks=chunks))


def test_a_line_of_another_encoding_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes("name\nZoë\n".encode() + "Zoë\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"t.csv, line 3 is not UTF-8") as raised:
        files.read(tmp_path / "t.csv")
    assert "encoding='cp1252'" in raised.value.todo
    (tmp_path / "t.csv").write_bytes("name\nZoë\n".encode("cp1252"))
    assert files.read(tmp_path / "t.csv", encoding="cp1252")["name"].to_list() == ["Zoë"]
    with pytest.raises(UsageError, match="'cp12' is not a known encoding"):
        files.read(tmp_path / "t.csv", encoding="cp12")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"id": ["x"], "name": ["y"]}, "b.parquet: the column 'id' is .*string, but int64 in .*a.parquet"),
        ({"id": [1]}, "b.parquet lacks the column 'name', which .*a.parquet has"),
        ({"id": [1], "name": ["y"], "more": [1]}, "b.parquet has a column 'more', which .*a.parquet lacks"),
    ],
)
def test_a_changed_schema_names_the_file_and_the_column(other, what, tmp_path):
    pd.DataFrame({"id": [1], "name": ["x"]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame(other).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=what):
        files.read(tmp_path / "*.parquet")


def test_types_that_widen_are_not_a_changed_schema(tmp_path):
    parquet.write_table(pa.table({"id": pa.array([1], pa.int32()), "x": [None]}), tmp_path / "a.parquet")
    parquet.write_table(pa.table({"x": ["y"], "id": pa.array([2**40])}), tmp_path / "b.parquet")
    assert files.read(tmp_path)["id"].to_list() == [1, 2**40]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl", "t.json", "t.feather", "t.xlsx", "t.csv.gz"])
def test_an_empty_file_and_one_that_is_cut_off_are_named(name, tmp_path):
    file = tmp_path / name
    file.write_bytes(b"")
    with pytest.raises(DataError, match=f"{name} is empty"):
        files.read(file)
    WRITERS[name](file)
    if name != "t.csv":  # of a CSV nothing says where it should end
        file.write_bytes(file.read_bytes()[:-40])
        with pytest.raises(DataError, match=rf"{name}(, line 3)? (cannot be read as|is not JSON)") as raised:
            files.read(file)
        assert "\n" not in raised.value.what


def test_a_compressed_file_of_nothing_is_empty(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="is empty"):
        files.read(tmp_path / "t.csv.gz")


@pytest.mark.parametrize(
    ("path", "options", "what"),
    [
        ("no.csv", {}, "There is no file .*no.csv"),
        ("no/*.csv", {}, "No file matches"),
        ("t.dat", {}, "has no known suffix"),
        ("t.csv", {"columns": ["nme"]}, r"t.csv has no column 'nme'. Did you mean 'name'"),
        ("t.csv", {"format": "cvs"}, r"'cvs' is not a format. Did you mean 'csv'"),
        ("ftp://host/t.csv", {}, "begins with ftp://"),
        ("https://127.0.0.1:1/t.csv", {}, "cannot be reached: .*refused"),
    ],
)
def test_what_is_asked_for_wrongly(path, options, what, tmp_path):
    for name in ("t.csv", "t.dat"):
        TABLE.to_csv(tmp_path / name, index=False)
    with pytest.raises((DataError, UsageError), match=what):
        files.read(path if "://" in path else tmp_path / path, **options)


def test_files_come_from_the_web(tmp_path):
    TABLE.to_parquet(tmp_path / "t.parquet")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert len(files.read(f"{address}/t.parquet?token=hunter2")) == 3
        with pytest.raises(DataError, match="answers 404") as raised:
            files.read(f"{address}/no.parquet?token=hunter2")
        server.shutdown()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("chunks", [None, 2])
def test_texts_of_a_csv_survive_as_they_are_written(tmp_path, chunks):
    text = "zip,country,n,x\n01234,NA,1,0.5\n99999,,NA,nan\n00000,null,3,2\n12345,FR,4,\n"
    (tmp_path / "t.csv").write_text(text)
    read = files.read(tmp_path / "t.csv", chunks=chunks)
    table = read if chunks is None else pd.concat(read, ignore_index=True)
    assert table["zip"].tolist() == ["01234", "99999", "00000", "12345"]
    assert [None if value != value else value for value in table["country"]] == ["NA", None, "null", "FR"]
    assert table["n"].isna().tolist() == [False, True, False, False]
    assert table["x"].isna().tolist() == [False, True, False, True]


def test_what_files_read_reads_is_what_a_request_s_csv_reads(tmp_path):
    from mlapp.schema import infer_schema
    from mlapp.schema.csv import read_csv
    from mlapp.schema.request_table import make_request_table

    content = b'zip,country,n,x,note\n01234,NA,1,0.5,""\n99999,,2,nan,"a ""b"""\n00000,FR,3,1,x\n'
    (tmp_path / "t.csv").write_bytes(content)
    table = files.read(tmp_path / "t.csv")
    schema = infer_schema(table)
    pd.testing.assert_frame_equal(make_request_table(read_csv(content, schema), schema), table, check_column_type=False)
