"""Reading from a real S3: SeaweedFS, which speaks its protocol."""

import boto3
import pandas as pd
import pytest

from mlapp.data import files
from mlapp.errors import DataError

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def bucket(s3_server, tmp_path_factory):
    client = boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    client.create_bucket(Bucket="sales")
    folder = tmp_path_factory.mktemp("s3")
    for day in (1, 2):
        pd.DataFrame({"id": range(day * 10), "x": 0.5}).to_parquet(folder / "t.parquet")
        client.upload_file(str(folder / "t.parquet"), "sales", f"orders/day=2026-01-0{day}/t.parquet")
    client.put_object(Bucket="sales", Key="small.csv", Body=b"a,b\n1,x\n")
    return "s3://sales"


@pytest.fixture(autouse=True)
def credentials(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_a_pattern_over_partitions(bucket):
    read = files.read(f"{bucket}/orders/day=*/*.parquet")
    assert len(read) == 30
    assert str(read["day"].dtype) == "datetime64[us]"
    assert [len(part) for part in files.read(f"{bucket}/orders/**/*.parquet", chunks=12)] == [12, 12, 6]
    assert len(files.read(f"{bucket}/orders")) == 30


def test_one_file_with_a_bucket_from_the_environment(bucket, monkeypatch):
    monkeypatch.setenv("BUCKET", "sales")
    assert files.read("s3://${BUCKET}/small.csv")["b"].to_list() == ["x"]


def test_what_is_not_there(bucket):
    with pytest.raises(DataError, match=r"There is no file s3://sales/no.csv"):
        files.read(f"{bucket}/no.csv")
    with pytest.raises(DataError, match="s3://nobucket"):
        files.read("s3://nobucket/no/*.csv")


def test_a_bucket_without_permission(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    with pytest.raises(DataError, match=r"There is no permission to read s3://sales/orders/") as raised:
        files.read(f"{bucket}/orders/*.parquet")
    assert "credentials" in raised.value.todo
    assert "secret" not in str(raised.value)


def test_a_host_that_is_down(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DataError, match="cannot be reached"):
        files.read("s3://sales/small.csv")
