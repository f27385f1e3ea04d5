"""The triggers of a function as data: a bucket notification, a queue mapping, and an EventBridge rule."""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings, S3Trigger, SqsTrigger, Triggers
from mlapp.errors import ConfigError

EVENT = "s3:ObjectCreated:*"


def refuse_contradictory_triggers(settings: LambdaSettings) -> None:
    """Check the triggers against the other settings.

    Raises:
        ConfigError: predictions would have no destination, or would trigger the function themselves.
    """
    triggers = settings.triggers
    if triggers.schedule is not None and settings.output is None:
        raise ConfigError(
            "targets.lambda.triggers.schedule is set, but targets.lambda.output is not.",
            "Set targets.lambda.output to a destination for the predictions, such as s3://bucket/predictions.",
        )
    if triggers.s3 is not None and settings.output is not None:
        source = f"s3://{triggers.s3.bucket}/{triggers.s3.prefix}"
        if f"{settings.output.rstrip('/')}/".startswith(source):
            raise ConfigError(
                f"targets.lambda.output {settings.output} is in {source}, where each new file invokes the function.",
                "Name another folder or bucket for the predictions, or a prefix for triggers.s3.",
            )


def name_trigger_rule(function: str) -> str:
    """Name of the EventBridge rule."""
    return f"{function[:58]}-mlapp"


def name_trigger_notification(function: str) -> str:
    """ID of mlapp's entry in a bucket's notifications."""
    return f"mlapp-{function}"


def make_trigger_notification(trigger: S3Trigger, function: str, alias_arn: Any) -> dict[str, Any]:
    """The function's entry in a bucket's notifications."""
    entry: dict[str, Any] = {
        "Id": name_trigger_notification(function),
        "LambdaFunctionArn": alias_arn,
        "Events": [EVENT],
    }
    rules = [
        {"Name": name, "Value": value}
        for name, value in (("prefix", trigger.prefix), ("suffix", trigger.suffix))
        if value
    ]
    if rules:
        entry["Filter"] = {"Key": {"FilterRules": rules}}
    return entry


def make_trigger_mapping(trigger: SqsTrigger, queue_arn: Any) -> dict[str, Any]:
    """Arguments of `CreateEventSourceMapping`, except the function's name. Only failed messages are retried."""
    return {
        "EventSourceArn": queue_arn,
        "BatchSize": trigger.batch,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }


def make_trigger_resources(function: str, triggers: Triggers) -> dict[str, Any]:
    """Resources of a CloudFormation template, which contains the function's alias as `Live`.

    The template that created a bucket owns its notifications, so mlapp's entry is in the metadata of the permission.
    """
    live: dict[str, Any] = {"Ref": "Live"}
    allow = {"FunctionName": live, "Action": "lambda:InvokeFunction"}
    resources: dict[str, Any] = {}
    if triggers.s3 is not None:
        bucket = triggers.s3.bucket
        resources["S3Permission"] = {
            "Type": "AWS::Lambda::Permission",
            "Metadata": {"Bucket": bucket, "Notification": make_trigger_notification(triggers.s3, function, live)},
            "Properties": {
                **allow,
                "Principal": "s3.amazonaws.com",
                "SourceAccount": {"Ref": "AWS::AccountId"},
                "SourceArn": {"Fn::Sub": f"arn:${{AWS::Partition}}:s3:::{bucket}"},
            },
        }
    if triggers.sqs is not None:
        queue = triggers.sqs.queue
        arn = {"Fn::Sub": f"arn:${{AWS::Partition}}:sqs:${{AWS::Region}}:${{AWS::AccountId}}:{queue}"}
        mapping = make_trigger_mapping(triggers.sqs, queue if queue.startswith("arn:") else arn)
        resources["Queue"] = {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {"FunctionName": live, **mapping},
        }
    if triggers.schedule is not None:
        rule = {
            "Name": name_trigger_rule(function),
            "ScheduleExpression": triggers.schedule,
            "Targets": [{"Id": "live", "Arn": live}],
        }
        resources["Schedule"] = {"Type": "AWS::Events::Rule", "Properties": rule}
        rule_arn = {"Fn::GetAtt": ["Schedule", "Arn"]}
        resources["SchedulePermission"] = {
            "Type": "AWS::Lambda::Permission",
            "Properties": {**allow, "Principal": "events.amazonaws.com", "SourceArn": rule_arn},
        }
    return resources
