"""Reading from a real Redis."""

import datetime
import inspect
import json
import traceback

import pytest
import redis

from mlapp.data import redis as source
from mlapp.errors import DataError, UsageError

pytestmark = pytest.mark.xdist_group("redis")


@pytest.fixture(scope="module")
def url(redis_server):
    with redis.Redis.from_url(redis_server) as client:
        for number in range(2500):
            client.hset(f"user:{number:04}", mapping={"age": number % 90, "score": number / 2, "name": f"n{number}"})
        client.hset("code:1", mapping={"code": "007"})
        client.set("order:1", json.dumps({"id": 1, "to": {"city": "Rome"}}))
        client.set("order:2", json.dumps({"id": 2, "paid": True}))
        client.rpush("clicks:2026-01-01", json.dumps({"page": "a"}), json.dumps({"page": "b"}))
        client.xadd("events", {"kind": "buy", "amount": "2.5"})
        client.zadd("top", {"ada": 3.5, "bob": 1})
        client.set("blob", b"\xff\xfe")
    return redis_server


def test_hashes_are_rows_in_the_order_of_their_keys(url):
    users = source.read(url, "user:*")
    assert len(users) == 2500
    assert users["key"].is_monotonic_increasing
    kinds = users.dtypes.astype(str)
    assert (kinds["age"], kinds["score"]) == ("int64", "float64")
    assert users["name"][7] == "n7"


def test_text_that_looks_like_a_number_stays_text_when_asked(url):
    assert source.read(url, "code:*")["code"].to_list() == [7]
    assert source.read(url, "code:*", types={"code": "str"})["code"].to_list() == ["007"]


def test_json_lists_streams_and_sorted_sets_are_rows(url):
    orders = source.read(url, "order:*")
    assert orders["id"].to_list() == [1, 2]
    assert orders["to.city"].to_list()[0] == "Rome"
    assert source.read(url, "clicks:{day}", day=datetime.date(2026, 1, 1))["page"].to_list() == ["a", "b"]
    assert source.read(url, "events")["amount"].to_list() == [2.5]
    assert source.read(url, "top", fields=["score"]).to_dict("list") == {"score": [1.0, 3.5]}


def test_chunks_stream(url):
    parts = list(source.read(url, "user:*", chunks=1000))
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert {str(part["age"].dtype) for part in parts} == {"Int64"}


def test_a_source_has_the_patterns_parameters(url):
    read = source.source(url, "clicks:{day}", day=datetime.date(2026, 1, 1))
    assert inspect.signature(read).parameters["day"].annotation is datetime.date
    assert len(read()) == 2
    with pytest.raises(UsageError, match="'day', which has no value"):
        source.read(url, "clicks:{day}")


def test_errors_hide_the_password(url):
    with pytest.raises(DataError, match=r"No key in redis://.* matches nobody:\*"):
        source.read(url, "nobody:*")
    with pytest.raises(DataError, match="is not text"):
        source.read(url, "blob")
    for address, what in [
        (url.replace("p%40ss", "wrong"), "invalid username-password pair"),
        ("redis://:wrong%2Fword@127.0.0.1:1/0", "cannot be reached: .*refused"),
        ("http://x", "not the address of a Redis"),
    ]:
        with pytest.raises(DataError, match=what) as raised:
            source.read(address, "user:*")
        assert "word" not in "".join(traceback.format_exception(raised.value)).replace("password", "")
