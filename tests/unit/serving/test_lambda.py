"""A model as an AWS Lambda function answers as the server does, whoever invokes it."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.aws_lambda import loop
from mlapp.aws_lambda.model_function import ModelFunction
from mlapp.aws_lambda.runtime_api import RuntimeApi, RuntimeApiError
from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.config import Serve
from mlapp.embed.host import ModelHost
from tests.lambda_runtime import RuntimeDouble, runtime_double

URL_EVENT: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/predict",
    "rawQueryString": "",
    "headers": {"content-type": "application/json", "host": "abc.lambda-url.eu-central-1.on.aws"},
    "requestContext": {
        "domainName": "abc.lambda-url.eu-central-1.on.aws",
        "http": {"method": "POST", "path": "/predict"},
        "stage": "$default",
    },
    "isBase64Encoded": False,
}
HTTP_API_EVENT = {
    **URL_EVENT,
    "rawPath": "/dev/digits/predict",
    "requestContext": {
        "domainName": "abc.execute-api.eu-central-1.amazonaws.com",
        "http": {"method": "POST", "path": "/dev/digits/predict"},
        "stage": "dev",
    },
}
REST_API_EVENT = {
    "resource": "/{proxy+}",
    "path": "/predict",
    "httpMethod": "POST",
    "headers": {"Content-Type": "application/json"},
    "multiValueHeaders": {"Content-Type": ["application/json"]},
    "requestContext": {"stage": "prod", "httpMethod": "POST"},
    "isBase64Encoded": False,
}
BALANCER_EVENT = {
    "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:123:targetgroup/a/b"}},
    "httpMethod": "POST",
    "path": "/digits/predict",
    "multiValueHeaders": {"content-type": ["application/json"]},
    "isBase64Encoded": False,
}
FORMS = {"url": URL_EVENT, "http api": HTTP_API_EVENT, "rest api": REST_API_EVENT, "balancer": BALANCER_EVENT}


@contextmanager
def function_of(app: App, trained: Any, serve: Serve | None = None, **settings: Any) -> Iterator[RuntimeDouble]:
    """The app's function, in a thread of this process."""
    host = ModelHost(app, trained, serve or Serve())
    function = ModelFunction(host, LambdaSettings(**settings))

    with runtime_double() as double, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_model_function", lambda bundle: function)

        def run() -> None:
            with pytest.raises(RuntimeApiError, match="500"):
                loop.run_lambda_loop(RuntimeApi(double.address), None)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield double
        finally:
            double.end()
            thread.join(100)
            host.close_model()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def numbers_function(numbers: tuple[App, Any]) -> Iterator[RuntimeDouble]:
    with function_of(*numbers) as double:
        yield double


BODIES = [
    b'{"inputs": [[1, 2]]}',
    b'[{"a": 0.1, "b": 0.2}]',
    b'{"inputs": [{"a": "x", "b": 1}]}',
    b"{",
    b"",
    b'{"a": 1}',
]


@pytest.mark.anyio
async def test_every_http_form_gets_the_servers_answer(
    numbers: tuple[App, Any], numbers_function: RuntimeDouble, serve: Callable[..., Any]
) -> None:
    async with serve(*numbers) as server:
        for body in BODIES:
            expected = await server.post("/predict", content=body, headers={"content-type": "application/json"})
            for form, event in FORMS.items():
                answer = numbers_function.invoke({**event, "body": body.decode()}).value
                assert (answer["statusCode"], answer["body"]) == (expected.status_code, expected.text), form
                headers = answer.get("headers") or answer["multiValueHeaders"]
                assert expected.headers["content-type"] in (headers["content-type"], *headers["content-type"])
                assert answer["isBase64Encoded"] is False
        array = io.BytesIO()
        np.save(array, np.array([[1.5, 2.0]]))
        expected = await server.post(
            "/predict", content=array.getvalue(), headers={"content-type": "application/x-npy"}
        )
        binary = {"body": base64.b64encode(array.getvalue()).decode(), "isBase64Encoded": True}
        answer = numbers_function.invoke({**URL_EVENT, **binary, "headers": {"content-type": "application/x-npy"}})
        assert answer.value["body"] == expected.text
    balancer = numbers_function.invoke({**BALANCER_EVENT, "body": "[[1, 2]]"}).value
    assert balancer["statusDescription"] == "200 OK"
    ready = {**URL_EVENT, "rawPath": "/readyz", "requestContext": {"http": {"method": "GET"}}}
    assert numbers_function.invoke(ready).value["statusCode"] == 200
    wrong = numbers_function.invoke({**URL_EVENT, "body": "[[1, 2]", "isBase64Encoded": True}).value
    assert (wrong["statusCode"], "isBase64Encoded" in wrong["body"]) == (400, True)


def test_a_direct_invocation_gets_the_answer_or_an_error(numbers_function: RuntimeDouble) -> None:
    answer = numbers_function.invoke(b'{"inputs": [[1, 2]]}')
    assert (answer.kind, answer.body) == ("response", b'{"predictions":[3.0],"model":"numbers","version":null}')
    assert numbers_function.invoke([{"a": 1, "b": 2}]).value["predictions"] == [3.0]
    for event, kind, text in [
        (b'{"inputs": [{"a": 1}]}', "InvalidInputs", "b"),
        (b"{}", "InvalidInputs", "inputs"),
        (b'{"inputs": [[1, 2]], "inputs": [[1, 2]]}', "InvalidRequest", "twice"),
    ]:
        error = numbers_function.invoke(event)
        assert (error.kind, error.value["errorType"]) == ("error", kind)
        assert text in error.value["errorMessage"]
        assert error.headers["Lambda-Runtime-Function-Error-Type"] == kind


def test_keys_protect_http_and_no_direct_invocation(numbers: tuple[App, Any]) -> None:
    with function_of(*numbers, Serve(api_keys=["secret"])) as double:
        assert double.invoke({**URL_EVENT, "body": "[[1, 2]]"}).value["statusCode"] == 401
        headers = {**URL_EVENT["headers"], "x-api-key": "secret"}
        assert double.invoke({**URL_EVENT, "headers": headers, "body": "[[1, 2]]"}).value["statusCode"] == 200
        assert double.invoke([[1, 2]]).value["predictions"] == [3.0]


def app_that(numbers: App, predictor: Any) -> App:
    app = App("other", target="y")
    app.data_reader(numbers.stage("data_reader").function)
    app.model(numbers.stage("model").function)
    app.predictor(predictor)
    return app


def test_an_answer_beyond_lambdas_limit_says_so(numbers: tuple[App, Any]) -> None:
    def predict(model, features: pd.DataFrame) -> list[str]:
        return ["x" * int(row) for row in features["a"]]

    app = app_that(numbers[0], predict)
    with function_of(app, app.train()) as double:
        answer = double.invoke({**URL_EVENT, "body": "[[6400000, 0]]"}).value
        assert answer["statusCode"] == 406
        assert "at most 6 MB" in answer["body"]
        answer = double.invoke({**BALANCER_EVENT, "body": "[[1100000, 0]]"}).value
        assert "at most 1 MB" in answer["body"]
        error = double.invoke([[6400000, 0]])
        assert (error.kind, error.value["errorType"]) == ("error", "AnswerTooLarge")
        assert double.invoke([[2, 0]]).value["predictions"] == ["xx"]


def test_a_predictor_that_yields_streams_where_the_url_does(numbers: tuple[App, Any]) -> None:
    def predict(model, features: pd.DataFrame) -> Iterator[float]:
        for row in model.predict(features).tolist():
            if row > 100:
                raise RuntimeError("secret")
            yield row

    app = app_that(numbers[0], predict)
    with function_of(app, app.train(), streaming=True) as double:
        posted = double.invoke({**URL_EVENT, "body": "[[1, 2], [3, 4]]"})
        assert posted.headers["Content-Type"] == "application/vnd.awslambda.http-integration-response"
        assert posted.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
        status, _, body = posted.body.partition(b"\0" * 8)
        assert json.loads(status)["statusCode"] == 200
        assert json.loads(status)["headers"]["content-type"] == "text/event-stream"
        assert body == b"data: 3.0\n\ndata: 7.0\n\nevent: end\ndata: {}\n\n"
        broken = double.invoke({**URL_EVENT, "body": "[[1, 2], [300, 4]]"}).body
        assert b"event: error" in broken
        assert b"secret" not in broken
        refused = double.invoke({**URL_EVENT, "body": "{"})
        assert json.loads(refused.body.partition(b"\0" * 8)[0])["statusCode"] == 400
        assert json.loads(double.invoke({**HTTP_API_EVENT, "body": "[[1, 2]]"}).value["body"])["predictions"] == [3.0]
        assert double.invoke([[1, 2], [3, 4]]).value["predictions"] == [3.0, 7.0]


def test_an_error_of_the_apps_code_ends_no_function(numbers: tuple[App, Any]) -> None:
    def predict(model, features: pd.DataFrame) -> list[float]:
        if features.iloc[0, 0] == 1300:
            raise MemoryError
        if features.iloc[0, 0] == 1301:
            raise RuntimeError("secret")
        return model.predict(features).tolist()

    app = app_that(numbers[0], predict)
    with function_of(app, app.train()) as double:
        for row in (1300, 1301):
            error = double.invoke([[row, 1]])
            assert (error.kind, error.value["errorType"]) == ("error", "ModelError")
            assert "secret" not in error.body.decode()
        assert double.invoke([[1, 1]]).value["predictions"] == [2.0]


def test_an_invocation_that_is_stopped_is_explained(numbers: tuple[App, Any]) -> None:
    logged = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "targets.lambda.timeout" in record.getMessage():
                logged.set()

    def predict(model, features: pd.DataFrame) -> list[float]:
        if features.iloc[0, 0] == 1300:
            assert logged.wait(100)
        return model.predict(features).tolist()

    app = app_that(numbers[0], predict)
    handler = Handler()
    logging.getLogger("mlapp.lambda").addHandler(handler)
    with function_of(app, app.train()) as double:
        double.timeout = 0.3
        assert double.invoke([[1300, 1]]).value["predictions"] == [1301.0]
    logging.getLogger("mlapp.lambda").removeHandler(handler)


def test_nearly_all_memory_used_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from mlapp.aws_lambda import limits

    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    assert limits.warn_of_lambda_memory()
    assert "of its 128 MB of memory. Raise targets.lambda.memory." in caplog.text
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "100000")
    assert not limits.warn_of_lambda_memory()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of S3 with the bucket `orders`."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="orders")
        yield client


def s3_event(*keys: str) -> dict[str, Any]:
    def record(key: str) -> dict[str, Any]:
        return {"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "orders"}, "object": {"key": key}}}  # fmt: skip

    return {"Records": [record(key) for key in keys]}


def test_files_in_s3_become_files_of_predictions(numbers: tuple[App, Any], bucket: Any) -> None:
    bucket.put_object(Bucket="orders", Key="new/may 1.csv", Body=b"a,b\n1,2\n3,4\n")
    bucket.put_object(Bucket="orders", Key="new/bad.json", Body=b"{")
    with function_of(*numbers) as double:
        written = double.invoke(s3_event("new/may+1.csv")).value["written"]
        assert written == ["s3://orders/predictions/new/may 1.csv.predictions.json"]
        content = bucket.get_object(Bucket="orders", Key=written[0].removeprefix("s3://orders/"))["Body"].read()
        assert content == b'{"predictions":[3.0,7.0],"model":"numbers","version":null}'
        own = s3_event("predictions/new/may+1.csv.predictions.json")
        assert double.invoke(own).value["written"] == []  # or it would invoke itself forever
        error = double.invoke(s3_event("new/bad.json", "new/may+1.csv"))
        assert error.value["errorType"] == "InvalidRequest"
        assert "s3://orders/new/bad.json" in error.value["errorMessage"]
        assert double.invoke({"Service": "Amazon S3", "Event": "s3:TestEvent"}).value["written"] == []
        bridge = {"source": "aws.s3", "detail-type": "Object Created",
                  "detail": {"bucket": {"name": "orders"}, "object": {"key": "new/may 1.csv"}}}  # fmt: skip
        assert double.invoke(bridge).value["written"] == written


def test_messages_that_fail_are_named(numbers: tuple[App, Any], bucket: Any) -> None:
    bodies = {"one": '{"inputs": [[1, 2]]}', "two": "{", "three": json.dumps(s3_event("gone.csv"))}
    records = [{"eventSource": "aws:sqs", "messageId": name, "body": body} for name, body in bodies.items()]
    with function_of(*numbers, output="s3://orders/answers") as double:
        answer = double.invoke({"Records": records}).value
    assert answer == {"batchItemFailures": [{"itemIdentifier": "two"}, {"itemIdentifier": "three"}]}
    content = bucket.get_object(Bucket="orders", Key="answers/one.predictions.json")["Body"].read()
    assert json.loads(content)["predictions"] == [3.0]


def test_a_schedule_predicts_what_the_reader_reads(numbers: tuple[App, Any], bucket: Any) -> None:
    event = {"source": "aws.events", "detail-type": "Scheduled Event", "time": "2026-05-01T00:00:00Z"}
    with function_of(*numbers, output="s3://orders/answers") as double:
        answer = double.invoke(event).value
    assert answer == {
        "written": ["s3://orders/answers/schedule/2026-05-01T00:00:00Z.predictions.json"],
        "rows": 40,
    }
    with function_of(*numbers) as double:
        assert double.invoke(event).value["errorType"] == "NoOutput"


HANDLER = """
def handle(event, context):
    if event["fails"]:
        raise ValueError("no")
    return {"sum": event["a"] + event["b"], "remains": context.get_remaining_time_in_millis() > 0}
"""


def test_awss_own_client_agrees_with_the_double(tmp_path: Path) -> None:
    """Ours and AWS's client send the same for the same events."""
    pytest.importorskip("awslambdaric")
    (tmp_path / "handler.py").write_text(HANDLER)
    events = [{"a": 1, "b": 2, "fails": False}, {"fails": True}]
    with runtime_double() as double:
        variables = {
            "AWS_LAMBDA_RUNTIME_API": double.address, "LAMBDA_TASK_ROOT": str(tmp_path), "_HANDLER": "handler.handle",
            "AWS_LAMBDA_FUNCTION_NAME": "sums", "AWS_LAMBDA_FUNCTION_VERSION": "1", "PATH": "/usr/bin",
        }  # fmt: skip
        command = [sys.executable, "-m", "awslambdaric", "handler.handle"]
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=subprocess.DEVNULL)
        theirs = [double.invoke(event) for event in events]
        process.kill()
        process.wait()
    with runtime_double() as double:
        api = RuntimeApi(double.address)

        def answer() -> None:
            for _ in events:
                invocation = api.wait_for_invocation()
                event = json.loads(invocation.body)
                if event["fails"]:
                    api.send_error(invocation, "ValueError", "no")
                else:
                    remains = invocation.remaining > 0
                    api.send_answer(invocation, json.dumps({"sum": 3, "remains": remains}).encode())

        thread = threading.Thread(target=answer)
        thread.start()
        ours = [double.invoke(event) for event in events]
        thread.join()
    assert (ours[0].kind, ours[0].value) == (theirs[0].kind, theirs[0].value)
    assert ours[1].kind == theirs[1].kind == "error"
    for key in ("errorType", "errorMessage"):
        assert ours[1].value[key] == theirs[1].value[key]
    assert ours[1].headers.keys() >= {"Lambda-Runtime-Function-Error-Type"} & theirs[1].headers.keys()


def test_the_entry_point_answers_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from mlapp import App\n\napp = App('empty')\n")
    (tmp_path / "mlapp.yaml").write_text("name: empty\n")
    command = [sys.executable, "-m", "mlapp.aws_lambda"]
    with runtime_double() as double:
        done = subprocess.run(command, cwd=tmp_path, env={"AWS_LAMBDA_RUNTIME_API": double.address},
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        output = double.init_error().value
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert output["errorType"] == "UsageError"
    assert "empty" in output["errorMessage"]
