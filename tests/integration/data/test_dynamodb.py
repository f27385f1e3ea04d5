"""Reading over DynamoDB's protocol, from moto's server."""

import inspect
from decimal import Decimal

import boto3
import pytest

from mlapp.data import dynamodb
from mlapp.errors import DataError, DeclarationError

pytestmark = pytest.mark.xdist_group("dynamodb")


@pytest.fixture(autouse=True)
def environment(dynamodb_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", dynamodb_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def orders(environment):
    resource = boto3.resource("dynamodb")
    if "orders" in [table.name for table in resource.tables.all()]:
        return "orders"
    table = resource.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "customer", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "customer", "AttributeType": "S"}, {"AttributeName": "id", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )  # fmt: skip
    with table.batch_writer() as writer:
        for number in range(1, 401):
            writer.put_item({
                "customer": "ada" if number % 2 else "bob", "id": number, "price": Decimal(number) / 4,
                "day": f"2026-01-{number % 28 + 1:02}", "paid": number % 3 == 0, "pad": "x" * 4000,
                "to": {"city": "Rome"}, "tags": {"a", "b"}, "size": number, "contains": "eggs",
                **({"visits": number} if number > 3 else {}),
            })  # fmt: skip
    return "orders"


def test_items_are_flattened_with_their_types(orders):
    table = dynamodb.read(orders)  # more than one page of a megabyte
    kinds = table.dtypes.astype(str)
    assert len(table) == 400
    assert (kinds["id"], kinds["visits"], kinds["price"], kinds["paid"]) == ("int64", "Int64", "float64", "bool")
    assert table["to.city"].eq("Rome").all()
    assert list(table["tags"][0]) == ["a", "b"]


def test_filters_keys_and_fields_may_use_reserved_words(orders):
    table = dynamodb.read(
        orders, filter="day >= :since AND paid = :paid", fields=["id", "day"], since="2026-01-20", paid=True
    )
    assert set(table) == {"id", "day"}
    assert table["day"].min() == "2026-01-20"
    ada = dynamodb.read(orders, key="customer = :who AND id BETWEEN :low AND :high", who="ada", low=1, high=9)
    assert ada["id"].to_list() == [1, 3, 5, 7, 9]
    assert (
        len(dynamodb.read(orders, filter="begins_with(customer, :start) AND price < :most", start="b", most=1.5)) == 2
    )


def test_an_attribute_may_have_the_name_of_a_function(orders):
    few = dynamodb.read(orders, filter="size <= :most AND size (pad) > :length", most=3, length=100)
    assert few["size"].to_list() == [1, 3, 2]
    assert len(dynamodb.read(orders, filter="contains = :what AND contains(contains, :part)", what="eggs", part="gg"))


def test_a_value_is_never_read_as_an_expression(orders):
    assert len(dynamodb.read(orders, filter="customer = :who", who="ada OR attribute_exists(id)")) == 0


def test_chunks_stream(orders):
    assert [len(part) for part in dynamodb.read(orders, fields=["id"], chunks=150)] == [150, 150, 100]


def test_a_source_has_the_expressions_parameters(orders):
    read = dynamodb.source(orders, key="customer = :who", who=str)
    assert inspect.signature(read).parameters["who"].annotation is str
    assert len(read(who="bob")) == 200
    with pytest.raises(DeclarationError, match="'who', which has no type"):
        dynamodb.source(orders, key="customer = :who")


def test_errors_are_reported(orders, monkeypatch):
    with pytest.raises(DataError, match=r"no table 'order' in DynamoDB. Did you mean 'orders'"):
        dynamodb.read("order")
    with pytest.raises(DataError, match="refused the request: "):
        dynamodb.read(orders, filter="customer == :who", who="x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DataError, match="cannot be reached"):
        dynamodb.read(orders)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(DataError, match="No AWS region is set"):
        dynamodb.read(orders)
