"""CSV with the types of a schema: the meaning of each cell, and errors with their row."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlapp.data.export import export_table
from mlapp.errors import InputError
from mlapp.schema import Field, Schema, infer_schema
from mlapp.schema.csv import read_csv
from mlapp.schema.csv_lines import CsvError
from mlapp.schema.request_table import make_request_table

PEOPLE = pd.DataFrame(
    {
        "zip": ["01234", "NA", "", "null"],
        "name": ["a,b", None, 'say "hi"\nand go', "x"],
        "age": [1, 2, 3, 4],
        "income": [0.1, None, 1e300, -2.5],
        "vip": [True, False, True, False],
        "city": pd.Categorical(["Bern", "Rome", "Bern", "Rome"]),
        "level": pd.Categorical([1, 2, 1, 2]),
        "born": pd.to_datetime(["2026-01-31", None, "1999-12-31T23:59:59.25", "2000-01-01"], format="ISO8601"),
    }
)
SCHEMA = infer_schema(PEOPLE, [*PEOPLE.columns, "y"])


def read(text: str, schema: Schema = SCHEMA) -> pd.DataFrame:
    return make_request_table(read_csv(text.encode(), schema), schema)


@pytest.mark.parametrize("name", ["people.csv", "people.csv.gz"])
def test_what_is_exported_is_read_back_as_it_was(tmp_path, name):
    import gzip

    export_table(PEOPLE.assign(y=1), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    back = read((gzip.decompress(content) if name.endswith("gz") else content).decode())
    pd.testing.assert_frame_equal(back, PEOPLE, check_dtype=True, check_column_type=False)


def test_columns_may_come_in_any_order_and_between_other_delimiters():
    table = PEOPLE.drop(index=2)[PEOPLE.columns[::-1]]
    for by in ";\t|":
        back = read(table.to_csv(index=False, sep=by))
        pd.testing.assert_frame_equal(back, PEOPLE.drop(index=2).reset_index(drop=True), check_column_type=False)


def test_names_with_blanks_around_them_are_found():
    table = pd.DataFrame({" padded ": [1], "two\nlines": [2], "c": [3]})
    pd.testing.assert_frame_equal(read(table.to_csv(index=False), infer_schema(table)), table)
    with pytest.raises(InputError, match="Did you mean ' padded '"):
        read("padded, c ,x\n1,2,3\n", infer_schema(table))


def test_without_a_header_the_columns_are_those_of_training():
    people = PEOPLE.drop(index=2).reset_index(drop=True)
    back = read(people.to_csv(index=False, header=False))
    pd.testing.assert_frame_equal(back, people, check_column_type=False)


def test_a_header_in_other_letters_is_an_error_and_no_row():
    header, _, rows = PEOPLE.to_csv(index=False).partition("\n")
    with pytest.raises(InputError, match=r"column 'ZIP' is unknown. Did you mean 'zip'\?"):
        read(header.upper() + "\n" + rows)


@pytest.mark.parametrize(
    ("row", "cells"), [("1,2,3", 3), ("1", 1), ("1,2,", 3), ('1,"2,3",4', 3), (",,", 3)], ids=lambda value: repr(value)
)
def test_a_row_with_more_or_fewer_cells_is_refused_by_its_number(row, cells):
    schema = infer_schema(pd.DataFrame({"a": [1.0, None], "b": ["x", None]}))
    with pytest.raises(InputError, match=f"row 1 has {cells} cells instead of 2") as refused:
        read(f"a,b\n1,x\n{row}\n2,y\n", schema)
    assert refused.value.problems[0].row == 1


def test_extra_cells_in_every_row_shift_no_column():
    schema = infer_schema(pd.DataFrame({"a": [1.0], "b": [2.0]}))
    with pytest.raises(InputError, match="row 0 has 3 cells"):
        read("a,b\n0,1,2\n0,3,4\n", schema)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,\n", "column 'b', row 0: the value is missing"),
        ("a,b\nNA,x\n", "column 'a', row 0: the value is missing"),
        ("a,b\n1_0,x\n", "column 'a', row 0: '1_0' is not a number"),
        ("a,b\n1,x\ninf,x\n", "column 'a', row 1: the value is infinite"),
        ("a,a,b\n1,1,x\n", "column 'a' appears twice"),
        ("a,b,c\n1,x,2\n", "column 'c' is unknown"),
        (",a,b\n0,1,x\n", "column '' is unknown"),
        ("a,b\n", "a header and no rows"),
        ("", "the CSV is empty"),
    ],
)
def test_what_does_not_fit_names_its_column_and_row(text, message):
    with pytest.raises(InputError, match=message):
        read(text, infer_schema(pd.DataFrame({"a": [1.0], "b": ["x"]})))


@pytest.mark.parametrize("content", [b"a,b\n\xff,1", b'a,b\n"x,1\n', b'a,b\n"x"y,1\n'])
def test_what_is_no_csv(content):
    with pytest.raises(CsvError):
        read_csv(content, infer_schema(pd.DataFrame({"a": ["x"], "b": [1]})))


def test_an_array_s_rows_are_numbers_with_or_without_a_header():
    schema = infer_schema(pd.DataFrame({"a": [1.5], "b": [2.5]}).to_numpy())
    assert read_csv(b"1.5,2\n3,4\n", schema) == read_csv(b"a,b\n1.5,2\n3,4\n", schema) == [[1.5, 2], [3, 4]]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(TEXTS, st.none() | TEXTS, st.none() | st.floats(allow_nan=False, allow_infinity=False)), min_size=1
    )
)
def test_texts_and_floats_are_preserved_exactly(tmp_path_factory, rows):
    table = pd.DataFrame(rows, columns=["text", "maybe", "number"], dtype=object).astype({"number": float})
    file = tmp_path_factory.getbasetemp() / "any.csv"
    export_table(table, file)
    schema = infer_schema(pd.DataFrame({"text": ["a", "b"], "maybe": ["a", None], "number": [0.5, None]}))
    back = read(file.read_bytes().decode(), schema)
    assert back["text"].tolist() == [text for text, _, _ in rows]
    assert [None if value != value else value for value in back["maybe"].tolist()] == [maybe for _, maybe, _ in rows]
    assert [None if value != value else value for value in back["number"].tolist()] == [number for *_, number in rows]


def test_cells_of_nothing_but_quotes_are_read_and_unclosed_ones_refused():
    schema = Schema(kind="table", fields=[Field(name="a", type="string", dtype="str")])
    assert read_csv(b'a\n"' + b'""' * 100_000 + b'"\n', schema)["a"][0] == '"' * 100_000
    with pytest.raises(CsvError, match="line 2"):
        read_csv(b'a\n"' + b'""' * 100_000 + b"\n", schema)


def test_a_line_of_a_million_cells_is_refused():
    schema = Schema(kind="table", fields=[Field(name="a", type="string", dtype="str")])
    for line in (b"," * 1_000_001, b'"x"' + b"," * 1_000_001):
        with pytest.raises(CsvError, match="cells"):
            read_csv(line + b"\n1\n", schema)


def test_columns_of_lists_or_of_several_types_are_refused():
    schema = infer_schema(pd.DataFrame({"x": [[1], [2]], "y": ["a", 1], "z": [None, None]}))
    for text, named in (("x,y,z\n[1],a,", "column 'x'"), ("y\na", "column 'y'")):
        with pytest.raises(InputError, match=f"{named} has values of several types, lists or records"):
            read_csv(text.encode(), schema)


def test_an_empty_text_of_arrow_is_distinguished_from_a_missing_one(tmp_path):
    import pyarrow as pa

    table = pd.DataFrame({"x": pd.array(["", None, "a"], pd.ArrowDtype(pa.string())), "y": [1, 2, 3]})
    export_table(table, tmp_path / "texts.csv")
    pd.testing.assert_frame_equal(read((tmp_path / "texts.csv").read_text(), infer_schema(table)), table)


def test_a_quoted_text_that_is_one_nul_is_neither_empty_nor_missing():
    schema = infer_schema(pd.DataFrame({"x": ["a", None], "y": ["b", "c"]}))
    for rest in ("", '"",b\n'):
        assert read_csv(f'x,y\n"\0",b\n{rest}'.encode(), schema)["x"][0] == "\0"
