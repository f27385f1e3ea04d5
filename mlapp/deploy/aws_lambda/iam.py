"""Minimal IAM permissions of the function and its deployer, as a CloudFormation template."""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings, SqsTrigger, Triggers
from mlapp.deploy.aws.iam import (
    PUSH_ACTIONS,
    make_iam_arn,
    make_iam_pass_role_statement,
    make_iam_role_template,
    make_iam_statement,
)
from mlapp.deploy.aws_lambda.trigger_documents import name_trigger_rule

SERVICE = "lambda.amazonaws.com"
DEPLOYER_ACTIONS = [
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
NETWORK_ACTIONS = [
    "AssignPrivateIpAddresses",
    "CreateNetworkInterface",
    "DeleteNetworkInterface",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "UnassignPrivateIpAddresses",
]
QUEUE_ACTIONS = ["DeleteMessage", "GetQueueAttributes", "ReceiveMessage"]
MAPPING_ACTIONS = ["Create", "Delete", "Update"]
RULE_ACTIONS = ["DeleteRule", "PutRule", "PutTargets", "RemoveTargets"]


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
    statements = [
        make_iam_statement(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs, f"{logs}:*"], is_template=True
        )
    ]
    if settings.output:
        bucket, _, prefix = settings.output.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        statements.append(
            make_iam_statement(["s3:PutObject"], [f"arn:${{AWS::Partition}}:s3:::{bucket}/{prefix}*"], is_template=True)
        )
    triggers = settings.triggers
    if triggers.s3:
        bucket_arn = f"arn:${{AWS::Partition}}:s3:::{triggers.s3.bucket}/"
        statements.append(
            make_iam_statement(["s3:GetObject"], [f"{bucket_arn}{triggers.s3.prefix}*"], is_template=True)
        )
        if not settings.output:
            statements.append(make_iam_statement(["s3:PutObject"], [f"{bucket_arn}predictions/*"], is_template=True))
    if triggers.sqs:
        statements.append(
            make_iam_statement(
                [f"sqs:{action}" for action in QUEUE_ACTIONS], [_make_queue_arn(triggers.sqs)], is_template=True
            )
        )
    if settings.vpc:
        statements.append(make_iam_statement([f"ec2:{action}" for action in NETWORK_ACTIONS], ["*"]))
    return statements


def _make_function_deployer_statements(
    function: str, repository: str, settings: LambdaSettings
) -> list[dict[str, Any]]:
    function_arn = make_iam_arn("lambda", f"function:{function}")
    repository_arn = make_iam_arn("ecr", f"repository/{repository}")
    log_arn = make_iam_arn("logs", f"log-group:/aws/lambda/{function}")
    role: Any = settings.role or {"Fn::GetAtt": ["FunctionRole", "Arn"]}
    return [
        make_iam_statement(
            [f"lambda:{action}" for action in DEPLOYER_ACTIONS], [function_arn, f"{function_arn}:*"], is_template=True
        ),
        make_iam_statement([f"ecr:{action}" for action in PUSH_ACTIONS], [repository_arn], is_template=True),
        make_iam_statement(
            ["ecr:GetAuthorizationToken", "sts:GetCallerIdentity", "cloudwatch:GetMetricStatistics"], ["*"]
        ),
        make_iam_statement(["logs:FilterLogEvents"], [log_arn, f"{log_arn}:*"], is_template=True),
        make_iam_pass_role_statement(role, SERVICE),
        *_make_trigger_statements(function, settings.triggers),
    ]


def _make_trigger_statements(function: str, triggers: Triggers) -> list[dict[str, Any]]:
    """The permissions for creating, changing and removing the triggers."""
    statements = []
    if triggers.s3:
        bucket = f"arn:${{AWS::Partition}}:s3:::{triggers.s3.bucket}"
        statements.append(
            make_iam_statement(["s3:GetBucketNotification", "s3:PutBucketNotification"], [bucket], is_template=True)
        )
    if triggers.sqs:
        arn = _make_queue_arn(triggers.sqs)
        statements.append(make_iam_statement(["sqs:GetQueueUrl", "sqs:GetQueueAttributes"], [arn], is_template=True))
        # IAM supports no narrower resource for these.
        statements.append(
            make_iam_statement([f"lambda:{action}EventSourceMapping" for action in MAPPING_ACTIONS], ["*"])
        )
        statements.append(make_iam_statement(["lambda:ListEventSourceMappings"], ["*"]))
    if triggers.schedule:
        rule = make_iam_arn("events", f"rule/{name_trigger_rule(function)}")
        statements.append(make_iam_statement([f"events:{action}" for action in RULE_ACTIONS], [rule], is_template=True))
    return statements


def _make_queue_arn(trigger: SqsTrigger) -> str:
    return trigger.queue if trigger.queue.startswith("arn:") else make_iam_arn("sqs", trigger.queue)
