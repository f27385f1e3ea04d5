"""Databases in a file (SQLite and DuckDB), and readers that an app makes of queries."""

import datetime
import inspect
import sqlite3
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pytest

from mlapp.data import sql
from mlapp.errors import DataError, DeclarationError, UsageError


@pytest.fixture
def sqlite(tmp_path):
    file = tmp_path / "shop.sqlite"
    with sqlite3.connect(file) as connection:
        connection.executescript("""
            CREATE TABLE orders (id INTEGER, price DECIMAL(12, 2), name TEXT, day DATE, at DATETIME, paid BOOLEAN, any);
            INSERT INTO orders VALUES (1, '1.50', 'Zoë', '2026-01-01', '2026-01-01 10:00:00', 1, 1),
                (2, NULL, NULL, NULL, NULL, NULL, NULL), (3, 2.25, 'x', '2026-01-03', '2026-01-03T00:00:00', 0, 'one');
        """)
    return f"sqlite:///{file}"


@pytest.fixture
def duck(tmp_path):
    file = tmp_path / "shop.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("""
            CREATE TABLE orders (id INTEGER, price DECIMAL(12, 2), name TEXT, day DATE, mood ENUM('sad', 'ok'));
            INSERT INTO orders VALUES (1, 1.50, 'Zoë', '2026-01-01', 'ok'), (2, NULL, NULL, NULL, NULL),
                (3, 2.25, 'x', '2026-01-03', 'sad')
        """)
    return f"duckdb:///{file}"


def test_sqlite_types_return_by_what_the_columns_declare(sqlite):
    orders = sql.read(sqlite, "SELECT * FROM orders ORDER BY id")
    kinds = orders.dtypes.astype(str)
    assert (kinds["id"], kinds["day"], kinds["at"], kinds["paid"]) == (
        "int64",
        "datetime64[us]",
        "datetime64[us]",
        "boolean",
    )
    assert orders["price"][0] == Decimal("1.50")
    assert orders["any"].dropna().to_list() == ["1", "one"]  # of several types: text


def test_duckdb_types_are_preserved(duck):
    orders = sql.read(duck, "SELECT * FROM orders ORDER BY id")
    kinds = orders.dtypes.astype(str)
    assert (kinds["id"], kinds["price"], kinds["day"]) == ("int32", "decimal128(12, 2)[pyarrow]", "datetime64[us]")
    assert list(orders["mood"].cat.categories) == ["sad", "ok"]


def test_duckdb_queries_files(tmp_path):
    pd.DataFrame({"a": range(10)}).to_parquet(tmp_path / "x.parquet")
    assert (
        sql.read("duckdb://", f"SELECT sum(a) AS s FROM '{tmp_path}/*.parquet' WHERE a > :least", least=5)["s"][0] == 30
    )


@pytest.mark.parametrize("database", ["sqlite", "duck"])
def test_parameters_are_bound(database, request):
    url = request.getfixturevalue(database)
    since = datetime.date(2026, 1, 2)
    assert list(sql.read(url, "SELECT id FROM orders WHERE day >= :since", since=since)["id"]) == [3]
    assert list(sql.read(url, "SELECT id FROM orders WHERE id IN :ids ORDER BY id", ids=(1, 3))["id"]) == [1, 3]
    assert list(sql.read(url, "SELECT id FROM orders WHERE name = ':x' OR id = :id", id=2)["id"]) == [2]
    assert sql.read(url, "SELECT id FROM orders WHERE name = :name", name="' OR 1=1 --").empty


@pytest.mark.parametrize("database", ["sqlite", "duck"])
def test_chunks(database, request):
    parts = list(sql.read(request.getfixturevalue(database), "SELECT id FROM orders ORDER BY id", chunks=2))
    assert [len(part) for part in parts] == [2, 1]
    assert {str(part["id"].dtype)[:3] for part in parts} == {"Int"}


@pytest.mark.parametrize("database", ["sqlite", "duck"])
def test_wrong_queries_are_pointed_at(database, request):
    url = request.getfixturevalue(database)
    with pytest.raises(DataError, match=r"line 2, column 6: .*nope") as raised:
        sql.read(url, "SELECT *\nFROM nope")
    assert raised.value.todo == "Fix it there: FROM ▶nope"
    with pytest.raises(DataError, match=r'line 1, column 1: .*"SELEC"'):
        sql.read(url, "SELEC 1")


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    for url in (f"sqlite:///{tmp_path}/no.sqlite", f"duckdb:///{tmp_path}/no.duckdb"):
        with pytest.raises(DataError, match="There is no"):
            sql.read(url, "SELECT 1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("db", "'db' is not the address of a database"),
        ("nosql://x", "No SQLAlchemy dialect for 'nosql'"),
        ("oracle://me:pw@host/db", "driver of oracle is not installed"),
    ],
)
def test_addresses_that_lead_nowhere(url, what):
    with pytest.raises((DataError, UsageError), match=what):
        sql.read(url, "SELECT 1")


def test_parameters_must_fit_the_query(sqlite):
    with pytest.raises(UsageError, match="parameter 'since', which has no value"):
        sql.read(sqlite, "SELECT :since")
    with pytest.raises(UsageError, match=r"'sinse' is not a parameter of the query. Did you mean 'since'"):
        sql.read(sqlite, "SELECT :since", since=1, sinse=2)
    with pytest.raises(UsageError, match=":ids is an empty list"):
        sql.read(sqlite, "SELECT id FROM orders WHERE id IN :ids", ids=[])
    with pytest.raises(UsageError, match="chunks=0"):
        sql.read(sqlite, "SELECT 1", chunks=0)


def test_a_source_is_a_reader_with_the_querys_parameters(sqlite, monkeypatch):
    monkeypatch.setenv("SHOP", sqlite)
    read = sql.source(
        "${SHOP}", "SELECT id FROM orders WHERE day >= :since AND id < :most", since=datetime.date, most=9
    )
    parameters = inspect.signature(read).parameters
    assert parameters["since"].annotation is datetime.date
    assert parameters["since"].default is inspect.Parameter.empty
    assert (parameters["most"].annotation, parameters["most"].default) == (int, 9)
    assert list(read(since=datetime.date(2026, 1, 2))["id"]) == [3]
    assert list(read(since=datetime.date(2025, 1, 1), most=2)["id"]) == [1]
    assert read.__name__ == "read_sql"
    assert "SELECT id FROM orders" in read.__doc__


def test_a_source_never_holds_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("SECRET_PASSWORD", "hunter2")
    read = sql.source("postgresql://me:${SECRET_PASSWORD}@127.0.0.1:1/db", "SELECT 1 AS a")
    texts = [read.__doc__, repr(read), *(repr(cell.cell_contents) for cell in read.__closure__)]
    with pytest.raises(DataError) as raised:
        read()
    assert "hunter2" not in "".join([*texts, str(raised.value)])


def test_a_source_refuses_what_does_not_fit_its_query():
    with pytest.raises(DeclarationError, match="'since', which has no type"):
        sql.source("sqlite://", "SELECT :since")
    with pytest.raises(DeclarationError, match="'sinse' is not a parameter"):
        sql.source("sqlite://", "SELECT :since", since=int, sinse=int)


@pytest.mark.parametrize(
    "given",
    [2, np.int64(2), np.uint8(2), np.float64(2), np.array(2), [np.int64(2)], np.array([2, 9]), pd.Series([2])],
    ids=lambda given: f"{type(given).__name__}",
)
@pytest.mark.parametrize("database", ["sqlite", "duck"])
def test_numpy_values_find_the_rows_that_python_values_find(request, database, given):
    has_many = isinstance(given, list) or getattr(given, "ndim", 0) > 0
    query = f"SELECT id FROM orders WHERE id {'IN :wanted' if has_many else '= :wanted'}"
    table = sql.read(request.getfixturevalue(database), query, wanted=given)
    assert table["id"].tolist() == [2]


@pytest.mark.parametrize("day", [pd.Timestamp("2026-01-03"), np.datetime64("2026-01-03")], ids=["pandas", "numpy"])
def test_times_of_pandas_and_numpy_are_bound_as_times(sqlite, day):
    table = sql.read(sqlite, "SELECT id FROM orders WHERE at <= :day", day=day)
    assert table["id"].tolist() == [1]


def test_texts_in_a_boolean_column_of_sqlite_mean_what_they_say(tmp_path):
    file = tmp_path / "flags.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE flags (id INTEGER, paid BOOLEAN)")
        texts = ["False", "FALSE", "f", "no", "off", "0", 0, "True", "t", "yes", "on", "1", 1]
        connection.executemany("INSERT INTO flags VALUES (?, ?)", list(enumerate(texts)))
    table = sql.read(f"sqlite:///{file}", "SELECT paid FROM flags ORDER BY id")
    assert table["paid"].tolist() == [False] * 7 + [True] * 6
