"""Reading over MongoDB's wire protocol, from SecantusDB, which keeps its data in MongoDB's own storage engine."""

import datetime
import inspect
import traceback
from decimal import Decimal

import bson
import pymongo
import pytest

from mlapp.data import flatten, mongo
from mlapp.errors import DataError, DeclarationError, UsageError

pytestmark = pytest.mark.xdist_group("mongo")

UTC = datetime.timezone.utc


@pytest.fixture(scope="module")
def url(mongo_server):
    with pymongo.MongoClient(mongo_server) as client:
        client.shop.orders.insert_many([
            {
                "id": 1,
                "paid": True,
                "price": bson.Decimal128("1.50"),
                "at": datetime.datetime(2026, 1, 1, 10, tzinfo=UTC),
                "customer": {"name": "Zoë", "address": {"city": "Rome"}},
                "tags": ["a", "b"],
                "mixed": 1,
            },
            {"id": 2, "paid": False, "customer": {"name": "x"}, "mixed": "one"},
            {"id": 3, "paid": True, "at": datetime.datetime(2026, 1, 3, tzinfo=UTC), "visits": 30, "customer": {}},
        ])  # fmt: skip
        client.shop.many.insert_many([{"n": n, "half": n / 2} for n in range(2_500)])
    return mongo_server


def test_documents_are_flattened_with_their_types(url):
    orders = mongo.read(url, "shop.orders")
    kinds = orders.dtypes.astype(str)
    assert "_id" not in orders
    assert (kinds["id"], kinds["paid"], kinds["visits"]) == ("int64", "bool", "Int64")
    assert kinds["at"] == "datetime64[us, UTC]"
    assert orders["price"][0] == Decimal("1.50")
    assert orders["customer.address.city"].to_list()[0] == "Rome"
    assert orders["mixed"].to_list()[:2] == ["1", "one"]
    assert list(orders["tags"][0]) == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "values", "found"),
    [
        ({"paid": True}, {}, [1, 3]),
        ({"at": {"$gte": ":since"}}, {"since": datetime.date(2026, 1, 2)}, [3]),
        ({"id": {"$in": ":ids"}}, {"ids": [1, 2]}, [1, 2]),
        ({"customer.name": ":name"}, {"name": "Zoë"}, [1]),
        ({"customer.name": ":name"}, {"name": '{"$gt": ""}'}, []),
        ([{"$match": {"paid": ":paid"}}, {"$sort": {"id": -1}}], {"paid": True}, [3, 1]),
    ],
)
def test_parameters_fill_the_query(url, query, values, found):
    orders = mongo.read(url, "shop.orders", query, **values)
    assert list(orders["id"] if len(orders) else []) == found


def test_fields_choose_what_is_read(url):
    assert list(mongo.read(url, "shop.orders", fields=["id", "customer.name"])) == ["id", "customer.name"]
    assert mongo.read(url, "shop.orders", fields=["_id"])["_id"].str.len().eq(24).all()


def test_chunks_stream(url, monkeypatch):
    parts = list(mongo.read(url, "shop.many", chunks=1000))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    monkeypatch.setattr(flatten, "ROWS", 1)
    with pytest.raises(DataError, match="'visits' appears only after the first part"):
        list(mongo.read(url, "shop.orders", fields=["id", "visits"], chunks=1))


def test_missing_data_is_reported(url):
    with pytest.raises(DataError, match=r"'shop' has no collection 'order'. Did you mean 'orders'") as raised:
        mongo.read(url, "shop.order")
    assert "many, orders" in raised.value.todo
    with pytest.raises(UsageError, match="'orders' names no database"):
        mongo.read(url, "orders")
    assert len(mongo.read(url, "shop.orders", {"id": 99})) == 0


def test_a_wrong_query_is_reported(url):
    with pytest.raises(DataError, match=r"The query failed: .*nope"):
        mongo.read(url, "shop.orders", {"id": {"$nope": 1}})


def test_no_connection_is_reported_without_the_password(monkeypatch):
    monkeypatch.setattr(mongo, "TIMEOUT", 300)
    monkeypatch.setenv("MONGO_PASSWORD", "hunter2")
    with pytest.raises(DataError, match=r"127.0.0.1:1.*cannot be reached: .*refused") as raised:
        mongo.read("mongodb://me:${MONGO_PASSWORD}@127.0.0.1:1/shop", "orders")
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))
    with pytest.raises(DataError, match="not the address of a MongoDB"):
        mongo.read("mongo://x", "a.b")


def test_a_source_has_the_querys_parameters(url):
    read = mongo.source(url, "shop.orders", {"at": {"$gte": ":since"}}, since=datetime.date)
    assert inspect.signature(read).parameters["since"].annotation is datetime.date
    assert list(read(since=datetime.date(2026, 1, 2))["id"]) == [3]
    with pytest.raises(DeclarationError, match="'since', which has no type"):
        mongo.source(url, "shop.orders", {"at": {"$gte": ":since"}})
