"""Minimal IAM permissions of the endpoint and its deployer, as a CloudFormation template."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.aws.iam import (
    PUSH_IMAGES,
    make_iam_arn,
    make_iam_pass_role_statement,
    make_iam_role_template,
    make_iam_statement,
)
from mlapp.deploy.sagemaker.settings import SageMakerSettings

SERVICE = "sagemaker.amazonaws.com"
PULL_IMAGES = ["BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"]
NETWORK = [
    "CreateNetworkInterface",
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
    "DescribeDhcpOptions",
    "DescribeNetworkInterfaces",
    "DescribeSecurityGroups",
    "DescribeSubnets",
    "DescribeVpcs",
]
DEPLOYER_ENDPOINT = [
    "AddTags",
    "CreateEndpoint",
    "CreateEndpointConfig",
    "CreateModel",
    "DeleteEndpoint",
    "DeleteEndpointConfig",
    "DeleteModel",
    "DescribeEndpoint",
    "DescribeModel",
    "InvokeEndpoint",
    "ListTags",
    "UpdateEndpoint",
    "UpdateEndpointWeightsAndCapacities",
]
SCALING = ["DeregisterScalableTarget", "DescribeScalableTargets", "PutScalingPolicy", "RegisterScalableTarget"]


def make_endpoint_iam_template(endpoint: str, repository: str, settings: SageMakerSettings) -> dict[str, Any]:
    """The execution role of the endpoint, and the policy of its deployer.

    Args:
        endpoint: the endpoint's name.
        repository: the name of the ECR repository.
    """
    return make_iam_role_template(
        endpoint,
        "sagemaker",
        "endpoint",
        "ExecutionRole",
        SERVICE,
        _make_endpoint_statements(endpoint, repository, settings),
        _make_endpoint_deployer_statements(endpoint, repository, settings),
    )


def _make_endpoint_statements(endpoint: str, repository: str, settings: SageMakerSettings) -> list[dict[str, Any]]:
    logs = make_iam_arn("logs", f"log-group:/aws/sagemaker/Endpoints/{endpoint}")
    images = make_iam_arn("ecr", f"repository/{repository}")
    found = [
        make_iam_statement(["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"], ["*"]),
        make_iam_statement([f"ecr:{action}" for action in PULL_IMAGES], [images], is_template=True),
        make_iam_statement(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [logs, f"{logs}:*"],
            is_template=True,
        ),
    ]
    if settings.vpc:
        found.append(make_iam_statement([f"ec2:{action}" for action in NETWORK], ["*"]))
    return found


def _make_endpoint_deployer_statements(
    endpoint: str, repository: str, settings: SageMakerSettings
) -> list[dict[str, Any]]:
    own = [make_iam_arn("sagemaker", f"{kind}/{endpoint}*") for kind in ("endpoint", "endpoint-config", "model")]
    images = make_iam_arn("ecr", f"repository/{repository}")
    logs = make_iam_arn("logs", f"log-group:/aws/sagemaker/Endpoints/{endpoint}")
    role: Any = settings.role or {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
    anywhere = ["sagemaker:ListModels", "ecr:GetAuthorizationToken", "sts:GetCallerIdentity"]
    found = [
        make_iam_statement([f"sagemaker:{action}" for action in DEPLOYER_ENDPOINT], own, is_template=True),
        make_iam_statement([f"ecr:{action}" for action in PUSH_IMAGES], [images], is_template=True),
        make_iam_statement([*anywhere, "cloudwatch:GetMetricStatistics"], ["*"]),
        make_iam_statement(["logs:FilterLogEvents"], [logs, f"{logs}:*"], is_template=True),
        make_iam_pass_role_statement(role, SERVICE),
    ]
    if settings.autoscaling is not None:
        found.append(make_iam_statement([f"application-autoscaling:{action}" for action in SCALING], ["*"]))
        linked = "sagemaker.application-autoscaling.amazonaws.com"  # AWS creates this role with the first target
        condition = {"StringEquals": {"iam:AWSServiceName": linked}}
        found.append({**make_iam_statement(["iam:CreateServiceLinkedRole"], ["*"]), "Condition": condition})
    return found
