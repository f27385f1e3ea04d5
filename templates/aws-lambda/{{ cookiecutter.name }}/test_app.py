import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from mlapp.aws_lambda.model_function import ModelFunction
from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.embed.host import ModelHost
from moto import mock_aws

from app import app

CSV = b"sepal_length,sepal_width,petal_length,petal_width\n5.1,3.5,1.4,0.2\n"


def test_every_event_gets_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    function = ModelFunction(ModelHost(app, app.train()), LambdaSettings())

    def invoke(event: str) -> Any:
        return json.loads(function.answer_event(Path(f"events/{event}.json").read_bytes(), 30))

    assert invoke("direct")["predictions"] == ["setosa"]
    assert json.loads(invoke("url")["body"])["predictions"] == ["setosa"]
    with mock_aws():
        bucket = boto3.client("s3")
        bucket.create_bucket(Bucket="flowers")
        bucket.put_object(Bucket="flowers", Key="new/flowers.csv", Body=CSV)
        [written] = invoke("s3")["written"]
        found = bucket.get_object(Bucket="flowers", Key=written.removeprefix("s3://flowers/"))["Body"].read()
    assert json.loads(found)["predictions"] == ["setosa"]
    function.host.close_model()
