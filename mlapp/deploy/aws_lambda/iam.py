"""The least that the function, and its deployer, may do: as a CloudFormation template of IAM."""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
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
DEPLOYER_REPOSITORY = [
    "BatchCheckLayerAvailability",
    "BatchGetImage",
    "CompleteLayerUpload",
    "CreateRepository",
    "DescribeRepositories",
    "GetDownloadUrlForLayer",
    "GetRepositoryPolicy",
    "InitiateLayerUpload",
    "PutImage",
    "SetRepositoryPolicy",
    "TagResource",
    "UploadLayerPart",
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
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": f"{function}-lambda",
            "AssumeRolePolicyDocument": TRUST,
            "Policies": [
                {"PolicyName": "least", "PolicyDocument": _document(_function_statements(function, settings))}
            ],
        },
    }
    deployer = {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "ManagedPolicyName": f"{function}-lambda-deploy",
            "PolicyDocument": _document(_deployer_statements(function, repository, settings)),
        },
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"IAM of the mlapp function {function}: what it may do, and what its deployer may do",
        "Resources": {"FunctionRole": role, "DeployPolicy": deployer},
        "Outputs": {
            "RoleArn": {"Description": "For targets.lambda.role", "Value": {"Fn::GetAtt": ["FunctionRole", "Arn"]}}
        },
    }


def _function_statements(function: str, settings: LambdaSettings) -> list[dict[str, Any]]:
    logs = f"arn:${{AWS::Partition}}:logs:*:${{AWS::AccountId}}:log-group:/aws/lambda/{function}"
    found = [
        _allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs, f"{logs}:*"], is_sub=True)
    ]
    if settings.output:
        bucket, _, prefix = settings.output.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        found.append(_allow(["s3:PutObject"], [f"arn:${{AWS::Partition}}:s3:::{bucket}/{prefix}*"], is_sub=True))
    if settings.vpc:
        found.append(_allow([f"ec2:{action}" for action in NETWORK], ["*"]))
    return found


def _deployer_statements(function: str, repository: str, settings: LambdaSettings) -> list[dict[str, Any]]:
    own = f"arn:${{AWS::Partition}}:lambda:*:${{AWS::AccountId}}:function:{function}"
    images = f"arn:${{AWS::Partition}}:ecr:*:${{AWS::AccountId}}:repository/{repository}"
    logs = f"arn:${{AWS::Partition}}:logs:*:${{AWS::AccountId}}:log-group:/aws/lambda/{function}"
    role: Any = settings.role or {"Fn::GetAtt": ["FunctionRole", "Arn"]}
    return [
        _allow([f"lambda:{action}" for action in DEPLOYER_FUNCTION], [own, f"{own}:*"], is_sub=True),
        _allow([f"ecr:{action}" for action in DEPLOYER_REPOSITORY], [images], is_sub=True),
        _allow(["ecr:GetAuthorizationToken", "sts:GetCallerIdentity", "cloudwatch:GetMetricStatistics"], ["*"]),
        _allow(["logs:FilterLogEvents"], [logs, f"{logs}:*"], is_sub=True),
        {
            **_allow(["iam:PassRole"], [role]),
            "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
        },
    ]


def _allow(actions: list[str], resources: list[Any], is_sub: bool = False) -> dict[str, Any]:
    named = [{"Fn::Sub": resource} for resource in resources] if is_sub else resources
    return {"Effect": "Allow", "Action": actions, "Resource": named}


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}
