"""Reading from a real PostgreSQL."""

import contextlib
import datetime
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace

import pandas as pd
import psycopg
import pytest

from mlapp.data import reconnect, sql
from mlapp.errors import DataError, UsageError

pytestmark = pytest.mark.xdist_group("postgres")

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE orders (
        id int PRIMARY KEY, visits bigint, price numeric(12, 2), rate numeric, score float8, paid bool, name text,
        day date, at timestamp, seen timestamptz, mood mood, host inet, key uuid, tags text[],
        more jsonb, "odd ""name" point
    );
    INSERT INTO orders VALUES
        (1, 10, 1.50, 0.001, 0.5, true, 'Zoë', '2026-01-01', '2026-01-01 10:00', '2026-01-01 10:00+02', 'ok',
         '10.0.0.1', '348ffb6d-4d54-492c-9c52-375a9763155b', '{a,b}', '{"a": 1}', '(1,2)'),
        (2, NULL, NULL, 'NaN', NULL, NULL, NULL, 'infinity', '-infinity', 'infinity',
         NULL, NULL, NULL, NULL, NULL, NULL),
        (3, 30, 2.25, 10, 1.5, false, 'it''s :day', '2026-01-03', '2026-01-03', '2026-01-03 00:00+00', 'sad',
         '10.0.0.0/8', NULL, '{}', '[]', '(3,4)');
    CREATE TABLE many AS SELECT n, n * 0.5 AS half, 'row ' || n AS text FROM generate_series(1, 200000) n;
"""


@pytest.fixture(scope="module")
def url(postgres):
    with psycopg.connect(postgres) as connection:
        connection.execute(TYPES)
    return postgres


def test_every_type_is_preserved(url):
    orders = sql.read(url, "SELECT * FROM orders ORDER BY id")
    assert orders.dtypes.astype(str).to_dict() | {"name": "text", "mood": "text", "host": "text", "key": "text"} == {
        "id": "int32",
        "visits": "Int64",
        "price": "decimal128(38, 2)[pyarrow]",
        "rate": "decimal128(38, 3)[pyarrow]",
        "score": "float64",
        "paid": "boolean",
        "name": "text",
        "day": "datetime64[us]",
        "at": "datetime64[us]",
        "seen": "datetime64[us, UTC]",
        "mood": "text",
        "host": "text",
        "key": "text",
        "tags": "object",
        "more": str(orders["name"].dtype),
        'odd "name': str(orders["name"].dtype),
    }
    first, missing, last = (orders.iloc[row] for row in range(3))
    assert first["price"] == Decimal("1.50")
    assert first["name"] == "Zoë"
    assert first["seen"] == pd.Timestamp("2026-01-01 08:00", tz="UTC")
    assert first["host"] == "10.0.0.1/32"
    assert first["key"] == "348ffb6d-4d54-492c-9c52-375a9763155b"
    assert list(first["tags"]) == ["a", "b"]
    assert first['odd "name'] == "(1,2)"
    assert missing.drop("id").isna().all()
    assert last["visits"] == 30


def test_a_column_becomes_what_types_says(url):
    orders = sql.read(url, "SELECT mood, price FROM orders", types={"mood": "category", "price": "float64"})
    assert list(orders["mood"].cat.categories) == ["ok", "sad"]
    assert orders["price"].dtype == "float64"
    with pytest.raises(UsageError, match=r"'prise', which is not in the data. Did you mean 'price'"):
        sql.read(url, "SELECT price FROM orders", types={"prise": "float64"})
    with pytest.raises(DataError, match="'name' does not fit its type 'int64'"):
        sql.read(url, "SELECT name FROM orders", types={"name": "int64"})


@pytest.mark.parametrize(
    ("where", "values", "found"),
    [
        ("day >= :since AND day < 'infinity'", {"since": datetime.date(2026, 1, 2)}, [3]),
        ("day >= :since AND day < 'infinity'", {"since": "2026-01-02"}, [3]),
        ("seen = :at", {"at": datetime.datetime(2026, 1, 1, 8, tzinfo=datetime.timezone.utc)}, [1]),
        ("id IN :ids", {"ids": [1, 3]}, [1, 3]),
        ("price > :least", {"least": Decimal("1.5")}, [3]),
        ("price > :least", {"least": 1.5}, [3]),
        ("name = :name", {"name": "Zoë"}, [1]),
        ("name = 'it''s :day' AND id > :id", {"id": 0}, [3]),
        ("paid = :paid", {"paid": True}, [1]),
        (":visits::bigint IS NULL OR visits = :visits", {"visits": None}, [1, 2, 3]),
        ("mood = :mood::mood", {"mood": "sad"}, [3]),
        ("id = :id OR id = :id + 1 -- :comment", {"id": 1}, [1, 2]),
    ],
)
def test_parameters_are_bound(url, where, values, found):
    rows = sql.read(url, f"SELECT id FROM orders WHERE {where}\n ORDER BY id", **values)
    assert list(rows["id"]) == found


@pytest.mark.parametrize("text", ["'; DROP TABLE orders; --", "x' OR '1'='1", "\\'; --", "$1"])
def test_a_value_is_never_read_as_sql(url, text):
    assert sql.read(url, "SELECT id FROM orders WHERE name = :name", name=text).empty
    assert len(sql.read(url, "SELECT id FROM orders")) == 3


def test_a_reader_cannot_write(url):
    with pytest.raises(DataError, match="cannot execute DELETE in a read-only transaction"):
        sql.read(url, "DELETE FROM orders RETURNING id")


def test_chunks_stream_with_one_set_of_types(url):
    for query, values in [("SELECT * FROM many", {}), ("SELECT * FROM many WHERE n > :least", {"least": 0})]:
        parts = list(sql.read(url, query, chunks=60_000, **values))
        assert [len(part) for part in parts] == [60_000, 60_000, 60_000, 20_000]
        assert len({tuple(part.dtypes) for part in parts}) == 1
        assert pd.concat(parts)["n"].sum() == 200_000 * 200_001 / 2


def test_no_rows_still_have_columns(url):
    for values in ({}, {"id": 99}):
        where = "id = :id" if values else "false"
        empty = sql.read(url, f"SELECT * FROM orders WHERE {where}", **values)
        assert len(empty) == 0
        assert empty["day"].dtype == "datetime64[us]"
    assert [len(part) for part in sql.read(url, "SELECT id FROM orders WHERE false", chunks=10)] == [0]


def test_show_and_with_and_values_work(url):
    assert sql.read(url, "SHOW server_version_num").iloc[0, 0].isdigit()
    assert sql.read(url, "-- a comment\nWITH x AS (SELECT 1 AS a) SELECT * FROM x;").iloc[0, 0] == 1
    assert len(sql.read(url, "VALUES (1), (2)")) == 2


@pytest.mark.parametrize(
    ("query", "values", "what", "todo"),
    [
        ("SELECT *\nFROM nope", {}, 'line 2, column 6: relation "nope" does not exist', "FROM ▶nope"),
        ("SELECT nope FROM orders", {}, 'line 1, column 8: column "nope" does not exist', "SELECT ▶nope FROM"),
        ("SELEC 1", {}, 'column 1: syntax error at or near "SELEC"', "▶SELEC 1"),
        ("SELECT * FROM orders WHERE day > :day AND nope = 1", {"day": "2026-01-01"}, "column 43", "AND ▶nope = 1"),
        ("SELECT * FROM orders WHERE day > :day", {"day": "soon"}, "parameter :day is 'soon'.*needs a date", "cast"),
        ("SELEC * FROM orders WHERE id = :id", {"id": 1}, 'syntax error at or near "SELEC"', "▶SELEC"),
        ("DELETE FROM orders WHERE id = :id", {"id": 1}, "it is not a SELECT", "returns a table"),
        ("SELECT 1 / (id - 1) AS x FROM orders", {}, "division by zero", "Fix the query"),
        ("SELECT 1 AS a, 2 AS a", {}, "Two columns have the name 'a'", "AS a_id"),
        ("SELECT ROW(1, 2) AS pair", {}, "The query failed", "Fix"),
    ],
)
def test_a_wrong_query_is_pointed_at(url, query, values, what, todo):
    with pytest.raises(DataError, match=what) as raised:
        sql.read(url, query, **values)
    assert todo in raised.value.todo


@pytest.mark.parametrize(
    ("change", "what", "todo"),
    [
        (("p%40ss", "wrong"), "password authentication failed", "the password"),
        (("127.0.0.1", "no.such.host.invalid"), "could not translate host name", "host's name"),
        (("/postgres", "/nope"), 'database "nope" does not exist', "database's name"),
    ],
)
def test_no_connection_says_why_and_never_the_password(url, change, what, todo):
    address = change[1].join(url.rsplit(change[0], 1))
    with pytest.raises(DataError, match=what) as raised:
        sql.read(address, "SELECT 1")
    assert todo in raised.value.todo
    output = "".join(traceback.format_exception(raised.value))
    assert "ss%2Fword" not in output
    assert "ss/word" not in output
    assert "postgres:***@" in output


def test_a_host_that_is_down_is_reported_without_another_attempt(monkeypatch):
    monkeypatch.setattr(reconnect, "PAUSES", (3600.0,))
    with pytest.raises(DataError, match="Connection refused"):
        sql.read("postgresql://me:pw@127.0.0.1:1/db", "SELECT 1")


def test_the_password_comes_from_the_environment(url, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word:1%")
    address = url.replace("p%40ss%2Fword%3A1%25", "${DB_PASSWORD}")
    assert sql.read(address, "SELECT 1 AS one")["one"][0] == 1
    monkeypatch.setenv("DB_URL", url)
    assert sql.read("${DB_URL}", "SELECT 1 AS one")["one"][0] == 1
    monkeypatch.delenv("DB_URL")
    with pytest.raises(DataError, match="DB_URL, which is not set"):
        sql.read("${DB_URL}", "SELECT 1 AS one")


SLOW = (
    "SELECT n, CASE WHEN n = 150000 THEN pg_advisory_xact_lock_shared(1)::text END AS waited, repeat('x', 100) AS x"
    " FROM many"
)
"""Waits in the middle for a lock."""


@contextlib.contextmanager
def cut_connections(url: str, times: int) -> Iterator[None]:
    """Within it, `SLOW` is ended in the middle so many times, and then goes through."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory'"

    def run() -> None:
        cut = set[int]()
        while len(cut) < times and not ended.wait(0.01):
            for (process,) in admin.execute(waiting).fetchall():
                admin.execute("SELECT pg_terminate_backend(%s)", [process])
                cut.add(process)
        admin.execute("SELECT pg_advisory_unlock(1)")

    ended = threading.Event()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SELECT pg_advisory_lock(1)")
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_a_lost_connection_is_read_again(url, monkeypatch):
    pauses = []
    monkeypatch.setattr(reconnect, "time", SimpleNamespace(sleep=pauses.append))
    with cut_connections(url, 1):
        rows = sql.read(url, SLOW)
    assert len(rows) == 200_000
    assert pauses == [reconnect.PAUSES[0]]


def test_a_connection_that_is_lost_again_and_again_is_an_error(url, monkeypatch):
    monkeypatch.setattr(reconnect, "PAUSES", (0.01,))
    with cut_connections(url, 2), pytest.raises(DataError, match="broke 2 times"):
        sql.read(url, SLOW)


def test_a_stream_that_is_lost_says_how_far_it_came(url):
    came = 0
    with cut_connections(url, 1), pytest.raises(DataError, match=r"broke after [\d,]+ rows") as raised:
        for part in sql.read(url, SLOW, chunks=10_000):
            came += len(part)
    assert f"after {came:,} rows" in raised.value.what
    assert came > 0


def test_a_stream_needs_little_memory(url):
    """Rows of 100 MB in all pass through little more than one part."""
    code = f"""
import resource
from mlapp.data import sql
import adbc_driver_postgresql.dbapi, pandas, pyarrow
next(sql.read({url!r}, "SELECT 1 AS n, 2.0::float8 AS x", chunks=10))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = 0
query = "SELECT n, n::float8 AS x, repeat('x', 240) AS y FROM generate_series(1, 400000) n"
for part in sql.read({url!r}, query, chunks=10_000):
    rows += len(part)
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    rows, grown = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert int(rows) == 400_000
    assert int(grown) < 60_000  # kB
