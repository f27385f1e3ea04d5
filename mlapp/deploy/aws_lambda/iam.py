"""The least that the function, and its deployer, may do: as a CloudFormation template of IAM."""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.deploy.aws.iam import PUSH_IMAGES, make_arn, make_pass_statement, make_role_template, make_statement

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


def make_iam_template(function: str, repository: str, settings: LambdaSettings) -> dict[str, Any]:
    """The role of the function, and the policy of its deployer.

    Args:
        function: the function's name.
        repository: the name of the ECR repository.
    """
    return make_role_template(
        function,
        "lambda",
        "function",
        "FunctionRole",
        SERVICE,
        _function_statements(function, settings),
        _deployer_statements(function, repository, settings),
    )


def _function_statements(function: str, settings: LambdaSettings) -> list[dict[str, Any]]:
    logs = make_arn("logs", f"log-group:/aws/lambda/{function}")
    found = [
        make_statement(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs, f"{logs}:*"], is_template=True
        )
    ]
    if settings.output:
        bucket, _, prefix = settings.output.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        found.append(
            make_statement(["s3:PutObject"], [f"arn:${{AWS::Partition}}:s3:::{bucket}/{prefix}*"], is_template=True)
        )
    if settings.vpc:
        found.append(make_statement([f"ec2:{action}" for action in NETWORK], ["*"]))
    return found


def _deployer_statements(function: str, repository: str, settings: LambdaSettings) -> list[dict[str, Any]]:
    own = make_arn("lambda", f"function:{function}")
    images = make_arn("ecr", f"repository/{repository}")
    logs = make_arn("logs", f"log-group:/aws/lambda/{function}")
    role: Any = settings.role or {"Fn::GetAtt": ["FunctionRole", "Arn"]}
    return [
        make_statement([f"lambda:{action}" for action in DEPLOYER_FUNCTION], [own, f"{own}:*"], is_template=True),
        make_statement([f"ecr:{action}" for action in PUSH_IMAGES], [images], is_template=True),
        make_statement(["ecr:GetAuthorizationToken", "sts:GetCallerIdentity", "cloudwatch:GetMetricStatistics"], ["*"]),
        make_statement(["logs:FilterLogEvents"], [logs, f"{logs}:*"], is_template=True),
        make_pass_statement(role, SERVICE),
    ]
