"""The fast paths of the CSV reader give the same results as the plain one."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlapp.errors import InputError
from mlapp.schema import Field, Schema, csv, csv_cells, csv_lines

FIELDS = [
    Field(name="n", type="number", dtype="float64", nullable=True),
    Field(name="i", type="integer", dtype="int64"),
    Field(name="s", type="string", dtype="object", nullable=True),
    Field(name="b", type="boolean", dtype="bool"),
]
CELLS = st.one_of(
    st.sampled_from(["", "1", "01234", "NA", "nan", "-nan", "inf", "1_0", " 2 ", "1e5", "true", '""', '"1"', '"a,b"']),
    st.text('0123456789.-+eENAn_ "xé\x0b\u2028', max_size=6),
    st.text("01", max_size=3).map(lambda text: '"' + text + '"'),
)
LINES = st.lists(CELLS, max_size=5).map(",".join)
TEXTS = st.tuples(
    st.sampled_from(["n,i,s,b", "s", "b,s,i,n", "other,n", '"n","i"', ""]),
    st.lists(LINES, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
).map(lambda made: made[2].join([made[0], *made[1]]) + made[2] * made[3])


def read(text: str, fields: list[Field], cells: int):
    try:
        pieces = list(csv.read_csv_in_pieces(text.encode(), Schema(kind="table", fields=fields), cells=cells))
    except InputError as error:
        return [problem.detail for problem in error.problems]
    except csv_lines.CsvError as error:
        return str(error)
    return [(table.dtypes.tolist(), [list(map(repr, row)) for row in table.values.tolist()]) for table, _ in pieces]


def read_plain_rows(text: str, by: str) -> csv_lines.QuotedCsv:
    """All rows by the reader that knows every rule."""
    return csv_lines.QuotedCsv(text, by, None)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from([1, 2, 4]), st.sampled_from([1, 6, 10**9]))
@example('s\n"a\nb"\n""\n', 1, 10**9)
@example('n,i\n1,"2"\n3,"4"x\n', 2, 10**9)
@example('s\n"a"b\n', 1, 10**9)
@example("n,i\n1,2\r\n\r\n3,\n", 2, 2)
@example('s,n\n"a,"",b",""\n"",1\n', 2, 10**9)
@example('s,n\n"","""a"\n"""",""\n', 2, 10**9)
@example('s,n\n"",x"\n"",2\n', 2, 10**9)
def test_quick_and_plain_reading_agree(text: str, width: int, cells: int) -> None:
    fields = FIELDS[:width]
    quick = read(text, fields, cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_cells, "convert_number_cells", lambda cells, dtype: None)
        patch.setattr(csv, "open_csv_rows", read_plain_rows)
        plain = read(text, fields, cells)
    assert quick == plain


def test_a_cell_that_is_too_long_for_pythons_reader_is_read() -> None:
    text = "x" * 200_000
    table = csv.read_csv(f'n,s\n1,"a"\n2,"{text}"\n3,b\n'.encode(), Schema(kind="table", fields=[FIELDS[0], FIELDS[2]]))
    assert isinstance(table, pd.DataFrame)
    assert table["s"].tolist() == ["a", text, "b"]
