"""Parameters are values in every source: they are not expanded, and cannot leave their folder."""

from __future__ import annotations

import datetime
from pathlib import Path

import pandas as pd
import pytest

from mlapp.data import files, mongo, sql
from mlapp.data.files.path_values import fill_path_values
from mlapp.data.redis import _escape_redis_pattern
from mlapp.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("HOST", "https://host")


@pytest.mark.parametrize(
    ("template", "value", "address"),
    [
        ("data/{month}.csv", "2026-01", "data/2026-01.csv"),
        ("data/{month}.csv", datetime.date(2026, 1, 31), "data/2026-01-31.csv"),
        ("data/{month}.csv", "2026/01", "data/2026/01.csv"),
        ("data/{month}.csv", "${TOKEN}", "data/${TOKEN}.csv"),
        ("data/{month}.csv", "{month}", "data/{month}.csv"),
        ("data/{month}*.csv", "a*[b]?", r"data/a[*][\[]b][?]*.csv"),
        ("http://host/{month}.csv", "${TOKEN}", "http://host/%24%7BTOKEN%7D.csv"),
        ("${HOST}/{month}.csv?x={month}", "a/b?c#d@e", "https://host/a/b%3Fc%23d%40e.csv?x=a%2Fb%3Fc%23d%40e"),
        ("http://{month}/x", "me@evil:80", "http://me%40evil%3A80/x"),
        ("s3://bucket/${TOKEN}/{month}", "1", "s3://bucket/hunter2/1"),
    ],
)
def test_a_value_is_filled_in_as_it_is(template: str, value: object, address: str) -> None:
    filled = fill_path_values(template, {"month": value})
    assert filled.value == address
    assert "hunter2" not in filled.display_name


@pytest.mark.parametrize(
    "value", ["../x", "a/../../x", "/etc/passwd", "~/x", "file:///etc/passwd", "", ".", "a//b", "a\0b"]
)
@pytest.mark.parametrize("template", ["data/{month}.csv", "{month}", "http://host/{month}.csv", "s3://bucket/{month}"])
def test_a_value_that_leads_elsewhere_is_refused(template: str, value: str) -> None:
    with pytest.raises(UsageError, match="month="):
        fill_path_values(template, {"month": value})


def test_a_value_in_the_place_of_a_bucket_is_one_name() -> None:
    with pytest.raises(UsageError, match="contains a '/'"):
        fill_path_values("s3://{month}/x.csv", {"month": "bucket/secret"})


def test_a_wildcard_in_a_value_matches_itself(tmp_path: Path) -> None:
    for name in ("a", "b", "[a]*"):
        pd.DataFrame({"name": [name]}).to_csv(tmp_path / f"{name}.csv", index=False)
    assert files.read(f"{tmp_path}/{{name}}.csv", name="[a]*")["name"].tolist() == ["[a]*"]
    with pytest.raises(DataError, match="No file matches"):
        files.read(f"{tmp_path}/{{name}}.csv", name="*")


def test_a_wildcard_in_a_value_of_a_redis_pattern_matches_itself() -> None:
    assert _escape_redis_pattern("user:*[1]?\\") == r"user:\*\[1\]\?\\"


@pytest.mark.parametrize("value", [{"$gt": ""}, [{"$ne": 1}]])
def test_operators_of_mongodb_are_no_value(value: object) -> None:
    with pytest.raises(UsageError, match="interpret as operators"):
        mongo.read("mongodb://127.0.0.1:9/x", "orders", {"user": ":user"}, user=value)


def test_a_value_is_no_field_of_an_aggregation() -> None:
    pipeline = [{"$match": {"user": ":user"}}, {"$project": {"shown": ":user"}}]
    assert mongo._fill_mongo_query(pipeline, {"user": "$password"}) == [
        {"$match": {"user": "$password"}},
        {"$project": {"shown": {"$literal": "$password"}}},
    ]
    assert mongo._fill_mongo_query({"$expr": {"$eq": ["$user", ":user"]}}, {"user": "$x"}) == {
        "$expr": {"$eq": ["$user", {"$literal": "$x"}]}
    }


@pytest.mark.parametrize("address", ["sqlite:///${TOKEN}", "duckdb:///${TOKEN}"])
def test_a_file_that_is_not_there_is_named_by_its_variable(address: str) -> None:
    with pytest.raises(DataError) as raised:
        sql.read(address, "SELECT 1")
    assert "${TOKEN}" in raised.value.what
    assert "hunter2" not in raised.value.what
