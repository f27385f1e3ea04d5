"""Reading from a real MariaDB through SQLAlchemy, as for every other database."""

import datetime
import gc
import threading
import time
import traceback
from decimal import Decimal

import pytest
import sqlalchemy

from mlapp.data import sql
from mlapp.errors import DataError

pytestmark = pytest.mark.xdist_group("mariadb")


@pytest.fixture(scope="module")
def url(mariadb):
    engine = sqlalchemy.create_engine(mariadb.replace("mysql:", "mysql+pymysql:"))
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE orders (id int, visits bigint, price decimal(12, 2), score double, name varchar(40),"
            " day date, at datetime(3), mood enum('sad', 'ok'), raw blob)",
            "INSERT INTO orders VALUES (1, 10, 1.50, 0.5, 'Zoë', '2026-01-01', '2026-01-01 10:00', 'ok', 'x'),"
            r" (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, 30, 2.25, 1.5, 'it\'s \:day',"
            " '2026-01-03', '2026-01-03', 'sad', NULL)",
            "CREATE TABLE many AS SELECT seq AS n, seq * 0.5 AS half FROM seq_1_to_50000",
        ):
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    return mariadb


def test_types_are_preserved(url):
    orders = sql.read(url, "SELECT * FROM orders ORDER BY id")
    kinds = orders.dtypes.astype(str).to_dict()
    assert (kinds["id"], kinds["visits"], kinds["score"]) == ("int64", "Int64", "float64")
    assert kinds["price"].startswith("decimal128")
    assert (kinds["day"], kinds["at"]) == ("datetime64[us]", "datetime64[us]")
    assert orders["price"][0] == Decimal("1.50")
    assert orders["name"][2] == "it's :day"
    assert orders.iloc[1].drop("id").isna().all()


@pytest.mark.parametrize(
    ("where", "values", "found"),
    [
        ("day >= :since", {"since": datetime.date(2026, 1, 2)}, [3]),
        ("id IN :ids", {"ids": [1, 3]}, [1, 3]),
        (r"name = 'it\'s :day' AND id > :id", {"id": 0}, [3]),
        ("name LIKE '%o%' AND price < :most", {"most": Decimal(2)}, [1]),
        ("name = :name", {"name": "'; DROP TABLE orders; --"}, []),
    ],
)
def test_parameters_are_bound(url, where, values, found):
    assert list(sql.read(url, f"SELECT id FROM orders WHERE {where} ORDER BY id", **values)["id"]) == found


def test_chunks_stream(url):
    assert [len(part) for part in sql.read(url, "SELECT * FROM many", chunks=20_000)] == [20_000, 20_000, 10_000]
    assert [len(part) for part in sql.read(url, "SELECT * FROM many WHERE false", chunks=20_000)] == [0]


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("SELECT *\nFROM nope", "line 2, column 6: Table 'shop.nope' doesn't exist"),
        ("SELECT nope FROM orders", "line 1, column 8: Unknown column 'nope'"),
        ("SELEC 1", "line 1, column 1: You have an error in your SQL syntax"),
        ("SET @a = 1", "returns no rows"),
    ],
)
def test_a_wrong_query_is_pointed_at(url, query, what):
    with pytest.raises(DataError, match=what):
        sql.read(url, query)


def test_a_wrong_password_is_never_printed(url):
    with pytest.raises(DataError, match="Access denied for user 'reader'") as raised:
        sql.read(url.replace("p%40ss", "wrong"), "SELECT 1")
    assert "Word" not in (output := "".join(traceback.format_exception(raised.value)))
    assert "ss/word" not in output
    assert "wrong%2Fword" not in output


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_that_is_lost_says_how_far_it_came(url):
    engine = sqlalchemy.create_engine(url.replace("mysql:", "mysql+pymysql:"), isolation_level="AUTOCOMMIT")

    def kill() -> None:
        with engine.connect() as connection:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                where = "info LIKE '%is_slow%' AND id <> connection_id()"
                query = f"SELECT id FROM information_schema.processlist WHERE {where}"
                for (process,) in connection.execute(sqlalchemy.text(query)).all():
                    connection.execute(sqlalchemy.text(f"KILL {process}"))
                    return
                time.sleep(0.1)

    killer = threading.Thread(target=kill)
    slow = "SELECT n, repeat('x', 500) AS x, if(n = 49000, sleep(60), 0) AS is_slow FROM many"
    came = 0
    with pytest.raises(DataError, match=r"broke after [\d,]+ rows") as raised:
        for part in sql.read(url, slow, chunks=5_000):
            if not came:
                killer.start()
            came += len(part)
    killer.join()
    engine.dispose()
    assert f"after {came:,} rows" in raised.value.what
    del raised
    gc.collect()  # nothing complains when the driver's cursor goes
