"""Minimal IAM permissions of the endpoint and its deployer, as a CloudFormation template."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.aws.iam import (
    PUSH_ACTIONS,
    make_iam_arn,
    make_iam_pass_role_statement,
    make_iam_role_template,
    make_iam_statement,
)
from mlapp.deploy.sagemaker.settings import SageMakerSettings

SERVICE = "sagemaker.amazonaws.com"
PULL_ACTIONS = ["BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"]
NETWORK_ACTIONS = [
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
DEPLOYER_ACTIONS = [
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
SCALING_ACTIONS = ["DeregisterScalableTarget", "DescribeScalableTargets", "PutScalingPolicy", "RegisterScalableTarget"]


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
    log_arn = make_iam_arn("logs", f"log-group:/aws/sagemaker/Endpoints/{endpoint}")
    repository_arn = make_iam_arn("ecr", f"repository/{repository}")
    statements = [
        make_iam_statement(["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"], ["*"]),
        make_iam_statement([f"ecr:{action}" for action in PULL_ACTIONS], [repository_arn], is_template=True),
        make_iam_statement(
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [log_arn, f"{log_arn}:*"],
            is_template=True,
        ),
    ]
    if settings.vpc:
        statements.append(make_iam_statement([f"ec2:{action}" for action in NETWORK_ACTIONS], ["*"]))
    return statements


def _make_endpoint_deployer_statements(
    endpoint: str, repository: str, settings: SageMakerSettings
) -> list[dict[str, Any]]:
    endpoint_arns = [
        make_iam_arn("sagemaker", f"{kind}/{endpoint}*") for kind in ("endpoint", "endpoint-config", "model")
    ]
    repository_arn = make_iam_arn("ecr", f"repository/{repository}")
    log_arn = make_iam_arn("logs", f"log-group:/aws/sagemaker/Endpoints/{endpoint}")
    role: Any = settings.role or {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
    unrestricted_actions = ["sagemaker:ListModels", "ecr:GetAuthorizationToken", "sts:GetCallerIdentity"]
    statements = [
        make_iam_statement([f"sagemaker:{action}" for action in DEPLOYER_ACTIONS], endpoint_arns, is_template=True),
        make_iam_statement([f"ecr:{action}" for action in PUSH_ACTIONS], [repository_arn], is_template=True),
        make_iam_statement([*unrestricted_actions, "cloudwatch:GetMetricStatistics"], ["*"]),
        make_iam_statement(["logs:FilterLogEvents"], [log_arn, f"{log_arn}:*"], is_template=True),
        make_iam_pass_role_statement(role, SERVICE),
    ]
    if settings.autoscaling is not None:
        statements.append(
            make_iam_statement([f"application-autoscaling:{action}" for action in SCALING_ACTIONS], ["*"])
        )
        linked_service = (
            "sagemaker.application-autoscaling.amazonaws.com"  # AWS creates this role with the first target
        )
        condition = {"StringEquals": {"iam:AWSServiceName": linked_service}}
        statements.append({**make_iam_statement(["iam:CreateServiceLinkedRole"], ["*"]), "Condition": condition})
    return statements
