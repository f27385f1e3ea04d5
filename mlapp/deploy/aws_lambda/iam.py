"""Minimal IAM permissions of the function and its deployer, as a CloudFormation template."""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings, SqsTrigger, Triggers
from mlapp.deploy.aws.iam import (
    PUSH_IMAGES,
    make_iam_arn,
    make_iam_pass_role_statement,
    make_iam_role_template,
    make_iam_statement,
)
from mlapp.deploy.aws_lambda.trigger_documents import name_trigger_rule

SERVICE = "lambda.amazonaws.com"
DEPLOYER_FUNCTION = [
    "AddPermission",
    "CreateAlias",
    "CreateFunction",
    "CreateFunctionUrlConfig",
    "DeleteFunction",
    "DeleteFunctionConcurrency",
    "DeleteFunctionUrlConfig",
    "GetAlias",
    "GetFunction",
    "GetFunctionConcurrency",
    "GetFunctionConfiguration",
    "GetFunctionUrlConfig",
    "InvokeFunction",
    "ListVersionsByFunction",
    "PublishVersion",
    "PutFunctionConcurrency",
    "RemovePermission",
    "TagResource",
    "UpdateAlias",
    "UpdateFunctionCode",
    "UpdateFunctionConfiguration",
    "UpdateFunctionUrlConfig",
]
NETWORK = [
    "AssignPrivateIpAddresses",
    "CreateNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "UnassignPrivateIpAddresses",
]


QUEUE = ["DeleteMessage", "GetQueueAttributes", "ReceiveMessage"]
MAPPING = ["Create", "Delete", "Update"]
RULE = ["DeleteRule", "PutRule", "PutTargets", "RemoveTargets"]


def make_function_iam_template(function: str, repository: str, settings: LambdaSettings) -> dict[str, Any]:
    """The role of the function, and the policy of its deployer.

    Args:
        function: the function's name.
        repository: the name of the ECR repository.
    """
    return make_iam_role_template(
        function,
        "lambda",
        "function",
        "FunctionRole",
        SERVICE,
        _make_function_statements(function, settings),
        _make_function_deployer_statements(function, repository, settings),
    )


def _make_function_statements(function: str, settings: LambdaSettings) -> list[dict[str, Any]]:
    logs = make_iam_arn("logs", f"log-group:/aws/lambda/{function}")
    found = [
        make_iam_statement(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs, f"{logs}:*"], is_template=True
        )
    ]
    if settings.output:
        bucket, _, prefix = settings.output.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        found.append(
            make_iam_statement(["s3:PutObject"], [f"arn:${{AWS::Partition}}:s3:::{bucket}/{prefix}*"], is_template=True)
        )
    triggers = settings.triggers
    if triggers.s3:
        read = f"arn:${{AWS::Partition}}:s3:::{triggers.s3.bucket}/"
        found.append(make_iam_statement(["s3:GetObject"], [f"{read}{triggers.s3.prefix}*"], is_template=True))
        if not settings.output:
            found.append(make_iam_statement(["s3:PutObject"], [f"{read}predictions/*"], is_template=True))
    if triggers.sqs:
        found.append(
            make_iam_statement([f"sqs:{action}" for action in QUEUE], [_make_queue_arn(triggers.sqs)], is_template=True)
        )
    if settings.vpc:
        found.append(make_iam_statement([f"ec2:{action}" for action in NETWORK], ["*"]))
    return found


def _make_function_deployer_statements(
    function: str, repository: str, settings: LambdaSettings
) -> list[dict[str, Any]]:
    own = make_iam_arn("lambda", f"function:{function}")
    images = make_iam_arn("ecr", f"repository/{repository}")
    logs = make_iam_arn("logs", f"log-group:/aws/lambda/{function}")
    role: Any = settings.role or {"Fn::GetAtt": ["FunctionRole", "Arn"]}
    return [
        make_iam_statement([f"lambda:{action}" for action in DEPLOYER_FUNCTION], [own, f"{own}:*"], is_template=True),
        make_iam_statement([f"ecr:{action}" for action in PUSH_IMAGES], [images], is_template=True),
        make_iam_statement(
            ["ecr:GetAuthorizationToken", "sts:GetCallerIdentity", "cloudwatch:GetMetricStatistics"], ["*"]
        ),
        make_iam_statement(["logs:FilterLogEvents"], [logs, f"{logs}:*"], is_template=True),
        make_iam_pass_role_statement(role, SERVICE),
        *_make_trigger_statements(function, settings.triggers),
    ]


def _make_trigger_statements(function: str, triggers: Triggers) -> list[dict[str, Any]]:
    """The permissions for creating, changing and removing the triggers."""
    found = []
    if triggers.s3:
        bucket = f"arn:${{AWS::Partition}}:s3:::{triggers.s3.bucket}"
        found.append(
            make_iam_statement(["s3:GetBucketNotification", "s3:PutBucketNotification"], [bucket], is_template=True)
        )
    if triggers.sqs:
        arn = _make_queue_arn(triggers.sqs)
        found.append(make_iam_statement(["sqs:GetQueueUrl", "sqs:GetQueueAttributes"], [arn], is_template=True))
        # IAM supports no narrower resource for these.
        found.append(make_iam_statement([f"lambda:{action}EventSourceMapping" for action in MAPPING], ["*"]))
        found.append(make_iam_statement(["lambda:ListEventSourceMappings"], ["*"]))
    if triggers.schedule:
        rule = make_iam_arn("events", f"rule/{name_trigger_rule(function)}")
        found.append(make_iam_statement([f"events:{action}" for action in RULE], [rule], is_template=True))
    return found


def _make_queue_arn(trigger: SqsTrigger) -> str:
    return trigger.queue if trigger.queue.startswith("arn:") else make_iam_arn("sqs", trigger.queue)
