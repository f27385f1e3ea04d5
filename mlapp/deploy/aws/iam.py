"""Statements and policies of IAM, and what every target on AWS needs of them."""

from __future__ import annotations

from typing import Any

PUSH_IMAGES = [
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
"""Actions on the ECR repository of an app, by who deploys it."""


def make_trust(service: str) -> dict[str, Any]:
    """The policy that lets a service of AWS assume a role.

    Args:
        service: such as `lambda.amazonaws.com`.
    """
    return make_policy([{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}])


def make_statement(actions: list[str], resources: list[Any], *, is_template: bool = False) -> dict[str, Any]:
    """A statement that allows actions.

    Args:
        is_template: CloudFormation replaces `${AWS::Partition}` and the like in the resources.
    """
    named = [{"Fn::Sub": resource} for resource in resources] if is_template else resources
    return {"Effect": "Allow", "Action": actions, "Resource": named}


def make_pass_statement(role: Any, service: str) -> dict[str, Any]:
    """A statement that allows to give a role to a service, and to no other."""
    condition = {"StringEquals": {"iam:PassedToService": service}}
    return {**make_statement(["iam:PassRole"], [role]), "Condition": condition}


def make_policy(statements: list[dict[str, Any]]) -> dict[str, Any]:
    """A policy document."""
    return {"Version": "2012-10-17", "Statement": statements}


def make_arn(service: str, resource: str) -> str:
    """A resource of the account in any region, as CloudFormation completes it."""
    return f"arn:${{AWS::Partition}}:{service}:*:${{AWS::AccountId}}:{resource}"


def make_role_template(
    name: str,
    target: str,
    subject: str,
    role_id: str,
    service: str,
    statements: list[dict[str, Any]],
    deployer: list[dict[str, Any]],
) -> dict[str, Any]:
    """A CloudFormation template of a role and of the policy of who deploys.

    Args:
        name: of the function or endpoint; the names of the role and the policy begin with it.
        target: the key below `targets:` in mlapp.yaml, such as `lambda`.
        subject: what the role is for, in words, such as `function`.
        role_id: the role's logical id in the template.
        service: the service that assumes the role, such as `lambda.amazonaws.com`.
        statements: what the role may do.
        deployer: what the policy allows.
    """
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": f"{name}-{target}",
            "AssumeRolePolicyDocument": make_trust(service),
            "Policies": [{"PolicyName": "least", "PolicyDocument": make_policy(statements)}],
        },
    }
    policy = {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"ManagedPolicyName": f"{name}-{target}-deploy", "PolicyDocument": make_policy(deployer)},
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"IAM of the mlapp {subject} {name}: what it may do, and what its deployer may do",
        "Resources": {role_id: role, "DeployPolicy": policy},
        "Outputs": {
            "RoleArn": {"Description": f"For targets.{target}.role", "Value": {"Fn::GetAtt": [role_id, "Arn"]}}
        },
    }
