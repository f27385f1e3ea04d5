"""IAM statements and policies that all AWS targets share."""

from __future__ import annotations

from typing import Any

PUSH_ACTIONS = [
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
"""Actions on an app's ECR repository that the deployer needs."""


def make_iam_trust_policy(service: str) -> dict[str, Any]:
    """The policy that lets an AWS service assume a role.

    Args:
        service: such as `lambda.amazonaws.com`.
    """
    return make_iam_policy([{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}])


def make_iam_statement(actions: list[str], resources: list[Any], *, is_template: bool = False) -> dict[str, Any]:
    """A statement that allows actions.

    Args:
        is_template: let CloudFormation replace `${AWS::Partition}` and similar variables in the resources.
    """
    arns = [{"Fn::Sub": resource} for resource in resources] if is_template else resources
    return {"Effect": "Allow", "Action": actions, "Resource": arns}


def make_iam_pass_role_statement(role: Any, service: str) -> dict[str, Any]:
    """A statement that allows passing a role to one service only."""
    condition = {"StringEquals": {"iam:PassedToService": service}}
    return {**make_iam_statement(["iam:PassRole"], [role]), "Condition": condition}


def make_iam_policy(statements: list[dict[str, Any]]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def make_iam_arn(service: str, resource: str) -> str:
    """The ARN of a resource of this account in any region. CloudFormation fills in partition and account."""
    return f"arn:${{AWS::Partition}}:{service}:*:${{AWS::AccountId}}:{resource}"


def make_iam_role_template(
    name: str,
    target: str,
    subject: str,
    role_id: str,
    service: str,
    statements: list[dict[str, Any]],
    deployer: list[dict[str, Any]],
) -> dict[str, Any]:
    """A CloudFormation template with a role and the deployer's policy.

    Args:
        name: the name of the function or endpoint; prefix of the role's and policy's names.
        target: the key below `targets:` in mlapp.yaml, such as `lambda`.
        subject: what uses the role, for the description, such as `function`.
        role_id: the role's logical id in the template.
        service: the service that assumes the role, such as `lambda.amazonaws.com`.
        statements: the role's permissions.
        deployer: the deployer's permissions.
    """
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": f"{name}-{target}",
            "AssumeRolePolicyDocument": make_iam_trust_policy(service),
            "Policies": [{"PolicyName": "least", "PolicyDocument": make_iam_policy(statements)}],
        },
    }
    policy = {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"ManagedPolicyName": f"{name}-{target}-deploy", "PolicyDocument": make_iam_policy(deployer)},
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"IAM of the mlapp {subject} {name}: what it may do, and what its deployer may do",
        "Resources": {role_id: role, "DeployPolicy": policy},
        "Outputs": {
            "RoleArn": {"Description": f"For targets.{target}.role", "Value": {"Fn::GetAtt": [role_id, "Arn"]}}
        },
    }
