"""The triggers of a function on AWS Lambda: made with the release that is live, changed and removed with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.config import Serve, decode_section
from mlapp.deploy import DeployError, Shipment
from mlapp.deploy.aws_lambda import LambdaTarget
from mlapp.errors import ConfigError

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")
requests = pytest.importorskip("requests")

REGION = "eu-central-1"
LIVE = f"arn:aws:lambda:{REGION}:123456789012:function:digits:live"
ALL = {
    "s3": {"bucket": "uploads", "prefix": "new/", "suffix": ".csv"},
    "sqs": {"queue": "questions", "batch": 5},
    "schedule": "rate(1 hour)",
}
OTHERS = {"Id": "theirs", "QueueArn": f"arn:aws:sqs:{REGION}:123456789012:questions", "Events": ["s3:ObjectRemoved:*"]}


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An account with a bucket, which others use too, a queue and a role; the role's ARN."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with moto.mock_aws(config={"lambda": {"use_docker": False}}):
        allow = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        boto3.client("sqs").create_queue(QueueName="questions", Attributes={"VisibilityTimeout": "180"})
        boto3.client("s3").create_bucket(Bucket="uploads", CreateBucketConfiguration={"LocationConstraint": REGION})
        boto3.client("s3").put_bucket_notification_configuration(
            Bucket="uploads", NotificationConfiguration={"QueueConfigurations": [OTHERS]}
        )
        yield boto3.client("iam").create_role(RoleName="digits", AssumeRolePolicyDocument=trust)["Role"]["Arn"]


@pytest.fixture
def target(role: str) -> Callable[..., LambdaTarget]:
    def make_target(triggers: dict[str, Any] | None = None, **more: Any) -> LambdaTarget:
        raw = {"role": role, "region": REGION, "output": "s3://out/predictions", **more, "triggers": triggers or {}}
        return LambdaTarget("digits", decode_section(LambdaSettings, raw, "targets.lambda"), Serve())

    return make_target


def shipment(number: int) -> Shipment:
    image = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/digits@sha256:{number:064}"
    return Shipment("digits", image, str(number), "abc", ((0.0, 1.0),))


def answer(count: int = 1) -> None:
    """Let the function answer so many invocations."""
    value = json.dumps({"predictions": [4], "model": "digits", "version": "1"})
    body = json.dumps({"results": [value] * count, "region": REGION}).encode()
    requests.post("http://motoapi.amazonaws.com/moto-api/static/lambda-simple/response", data=body)


def read_triggers() -> tuple[list[str], list[tuple[str, int]], list[tuple[str, str, list[str]]]]:
    """Our notifications of the bucket, the mappings with their batch size, and the rules with their targets."""
    notifications = boto3.client("s3").get_bucket_notification_configuration(Bucket="uploads")
    assert [each["Id"] for each in notifications["QueueConfigurations"]] == ["theirs"], "what others made stays"
    own = notifications.get("LambdaFunctionConfigurations", [])
    mappings = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    events = boto3.client("events")
    return (
        [each["LambdaFunctionArn"] for each in own],
        [(each["EventSourceArn"].rpartition(":")[2], each["BatchSize"]) for each in mappings],
        [
            (rule["Name"], rule["ScheduleExpression"], [each["Arn"] for each in targets["Targets"]])
            for rule in events.list_rules()["Rules"]
            for targets in [events.list_targets_by_rule(Rule=rule["Name"])]
        ],
    )


def read_permissions() -> dict[str, str]:
    """Who may invoke the alias: principal → source."""
    policy = json.loads(boto3.client("lambda").get_policy(FunctionName="digits", Qualifier="live")["Policy"])
    return {each["Principal"]["Service"]: each["Condition"]["ArnLike"]["AWS:SourceArn"] for each in policy["Statement"]}


def test_a_deploy_makes_the_triggers_of_the_alias_and_a_delete_removes_them(target) -> None:
    answer(2)
    messages: list[str] = []
    target(ALL).apply(shipment(1), progress=messages.append)
    everything = ([LIVE], [("questions", 5)], [("digits-mlapp", "rate(1 hour)", [LIVE])])
    assert read_triggers() == everything
    rule = f"arn:aws:events:{REGION}:123456789012:rule/digits-mlapp"
    assert read_permissions() == {"s3.amazonaws.com": "arn:aws:s3:::uploads", "events.amazonaws.com": rule}
    assert "new files in s3://uploads/new/ invoke digits:live" in messages

    assert target(ALL).diff(shipment(1)) == ""
    changed = target({"sqs": {"queue": "questions", "batch": 2}})
    assert "-  schedule: rate(1 hour)\n" in changed.diff(shipment(1))
    changed.apply(shipment(2))
    assert read_triggers() == ([], [("questions", 2)], [])
    answer()
    target(ALL).rollback(1)
    assert read_triggers() == everything, "a release brings the triggers that it was deployed with"

    assert target().delete() == [
        "notification of s3://uploads", "mapping of queue questions", "rule digits-mlapp", "function digits",
    ]  # fmt: skip
    assert read_triggers() == ([], [], [])


def test_a_canary_gets_its_triggers_when_it_is_promoted(target) -> None:
    answer(2)
    target({"schedule": "rate(1 hour)"}).apply(shipment(1))
    place = target({"schedule": "cron(0 6 * * ? *)"})
    place.canary(shipment(2), 10)
    assert read_triggers()[2][0][1] == "rate(1 hour)"
    place.promote()
    assert read_triggers()[2][0][1] == "cron(0 6 * * ? *)"


def test_what_is_missing_or_contradicts_is_reported_before_anything_is_made(target) -> None:
    for triggers, more, error, words in (
        ({"s3": {"bucket": "nowhere"}}, {}, DeployError, "bucket does not exist"),
        ({"sqs": {"queue": "nowhere"}}, {}, DeployError, "queue does not exist"),
        ({"sqs": {"queue": "questions"}}, {"timeout": 300}, DeployError, "has a visibility timeout of 180 s"),
        ({"schedule": "rate(1 hour)"}, {"output": None}, ConfigError, "targets.lambda.output is not"),
        ({"s3": {"bucket": "out", "prefix": "pred"}}, {}, ConfigError, "each new file invokes the function"),
    ):
        place = target(triggers, **more)
        for act in (place.check, lambda place=place: place.apply(shipment(1))):
            with pytest.raises(error, match=words):
                act()
    with pytest.raises(ConfigError, match=r"triggers\.schedule"):
        target({"schedule": "hourly"})
    assert boto3.client("lambda").list_functions()["Functions"] == []


def test_a_missing_right_for_a_trigger_is_named_and_the_release_stays_live(target, monkeypatch) -> None:
    from botocore.client import BaseClient
    from botocore.exceptions import ClientError

    call = BaseClient._make_api_call

    def refuse(self: Any, operation: str, options: Any) -> Any:
        if operation == "PutRule":
            text = "User: me is not authorized to perform: events:PutRule on resource: digits-mlapp"
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": text}}, operation)
        return call(self, operation, options)

    answer(2)
    with monkeypatch.context() as patched:
        patched.setattr(BaseClient, "_make_api_call", refuse)
        with pytest.raises(
            DeployError, match="Release 1 is live, but not all.*lacks the permission events:PutRule"
        ) as error:
            target(ALL).apply(shipment(1))
    assert "Then deploy again" in error.value.todo
    target(ALL).apply(shipment(1))
    assert read_triggers()[2], "the next deploy finishes"


def test_a_dry_run_and_the_least_role_have_the_triggers(target) -> None:
    resources = target(ALL).render(shipment(1))[0]["Resources"]
    assert resources["Queue"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert resources["Schedule"]["Properties"]["Targets"] == [{"Id": "live", "Arn": {"Ref": "Live"}}]
    notification = resources["S3Permission"]["Metadata"]["Notification"]
    assert notification["Filter"]["Key"]["FilterRules"][0] == {"Name": "prefix", "Value": "new/"}
    printed = json.dumps(target(ALL).iam())
    for action in ("s3:GetObject", "s3:PutBucketNotification", "sqs:ReceiveMessage", "events:PutRule"):
        assert action in printed
        assert action not in json.dumps(target().iam())
