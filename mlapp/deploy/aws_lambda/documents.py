"""The function as data: arguments of API calls, and a CloudFormation template."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.aws_lambda.settings import LambdaSettings, Triggers
from mlapp.deploy.aws_lambda.trigger_documents import make_trigger_resources
from mlapp.deploy.target import Shipment
from mlapp.images.image_spec import VENV
from mlapp.secret_variables import refuse_secret_variables

LIVE = "live"
"""The alias that the function's URL and callers use."""
RECORD_VARIABLE = "MLAPP_RELEASE"
"""The environment variable that describes a version."""
PUBLIC_PERMISSIONS: dict[str, dict[str, Any]] = {
    "Url": {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
    "Function": {"Action": "lambda:InvokeFunction", "InvokedViaFunctionUrl": True},
}
"""The actions that a public URL allows for everyone."""
MAX_EXAMPLE_BYTES = 1500
"""Maximum bytes of an example in the record: a function's variables are limited to 4 kB in total."""


NO_TRIGGERS = Triggers()


class ReleaseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Description of a version, stored in its environment."""

    image: str
    model_version: str | None = None
    code_revision: str | None = None
    by: str | None = None
    example: list[Any] | None = None
    triggers: Triggers = NO_TRIGGERS

    def make_shipment(self, app: str) -> Shipment:
        """The shipment."""
        return Shipment(app, self.image, self.model_version, self.code_revision, self.example)


def make_function_record(shipment: Shipment, by: str | None, triggers: Triggers = NO_TRIGGERS) -> ReleaseRecord:
    """The record of a shipment, with the triggers to create when it becomes live. A long example is omitted."""
    example = None if shipment.example is None else list(shipment.example)
    if len(msgspec.json.encode(example)) > MAX_EXAMPLE_BYTES:
        example = None
    return ReleaseRecord(shipment.image, shipment.model_version, shipment.code_revision, by, example, triggers)


def refuse_plain_function_secrets(settings: LambdaSettings) -> None:
    """Refuse secrets in the function's variables: everyone who may describe the function can read them.

    Raises:
        ConfigError: a variable looks like a secret.
    """
    refuse_secret_variables(
        "targets.lambda.env", settings.env, "in the function", "Read it from AWS Secrets Manager instead."
    )


def make_function_configuration(settings: LambdaSettings, record: ReleaseRecord) -> dict[str, Any]:
    """Arguments of `UpdateFunctionConfiguration`, except the function's name.

    Raises:
        ConfigError: a variable looks like a secret.
    """
    refuse_plain_function_secrets(settings)
    arguments: dict[str, Any] = {
        "Description": f"mlapp: model version {record.model_version or 'unknown'}",
        "Timeout": settings.timeout,
        "MemorySize": settings.memory,
        "EphemeralStorage": {"Size": settings.storage},
        "ImageConfig": {"EntryPoint": [f"{VENV}/bin/python", "-m", "mlapp.aws_lambda"]},
        "Environment": {"Variables": {**settings.env, RECORD_VARIABLE: msgspec.json.encode(record).decode()}},
    }
    if settings.role:
        arguments["Role"] = settings.role
    vpc = settings.vpc
    arguments["VpcConfig"] = {
        "SubnetIds": list(vpc.subnets) if vpc else [],
        "SecurityGroupIds": list(vpc.security_groups) if vpc else [],
    }
    return arguments


def describe_function_configuration(
    name: str, configuration: dict[str, Any], record: ReleaseRecord | None
) -> dict[str, Any]:
    """The part of a configuration that a deploy sets, in the same form for current and planned ones."""
    keys = ("Role", "MemorySize", "Timeout", "EphemeralStorage", "Description")
    variables = dict(configuration.get("Environment", {}).get("Variables", {}))
    variables.pop(RECORD_VARIABLE, None)
    config = configuration.get("ImageConfig") or configuration.get("ImageConfigResponse", {}).get("ImageConfig") or {}
    vpc = configuration.get("VpcConfig") or {}
    return {
        "FunctionName": name,
        "ImageUri": record.image if record else None,
        **{key: configuration[key] for key in keys if key in configuration},
        "EntryPoint": config.get("EntryPoint", []),
        "Environment": variables,
        "SubnetIds": vpc.get("SubnetIds", []),
        "SecurityGroupIds": vpc.get("SecurityGroupIds", []),
        "Triggers": msgspec.to_builtins(record.triggers if record else NO_TRIGGERS),
    }


def make_function_url(settings: LambdaSettings) -> dict[str, str] | None:
    """Arguments of `CreateFunctionUrlConfig`; None if the function has no URL."""
    if settings.url == "none":
        return None
    return {
        "AuthType": "NONE" if settings.url == "public" else "AWS_IAM",
        "InvokeMode": "RESPONSE_STREAM" if settings.streaming else "BUFFERED",
    }


def make_function_template(
    name: str, settings: LambdaSettings, record: ReleaseRecord, canary: tuple[str | None, int] | None = None
) -> dict[str, Any]:
    """A CloudFormation template of the deployment.

    Args:
        canary: the live version, or None for a parameter of the template, and the percentage of the new one.
    """
    configuration = make_function_configuration(settings, record)
    if not configuration["VpcConfig"]["SubnetIds"]:
        del configuration["VpcConfig"]
    configuration.setdefault("Role", {"Ref": "RoleArn"})
    function = {
        "FunctionName": name,
        "PackageType": "Image",
        "Code": {"ImageUri": record.image},
        "Architectures": [settings.architecture],
        **configuration,
    }
    if settings.concurrency is not None:
        function["ReservedConcurrentExecutions"] = settings.concurrency
    if settings.tags:
        function["Tags"] = [{"Key": key, "Value": value} for key, value in settings.tags.items()]
    new_version = {"Fn::GetAtt": ["Version", "Version"]}
    alias: dict[str, Any] = {"FunctionName": {"Ref": "Function"}, "Name": LIVE, "FunctionVersion": new_version}
    if canary is not None:
        live, percent = canary
        alias["FunctionVersion"] = live or {"Ref": "LiveVersion"}
        alias["RoutingConfig"] = {
            "AdditionalVersionWeights": [{"FunctionVersion": new_version, "FunctionWeight": percent / 100}]
        }
    resources: dict[str, Any] = {
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
        "Live": {"Type": "AWS::Lambda::Alias", "Properties": alias},
    }
    url = make_function_url(settings)
    if url is not None:
        alias_arguments = {"TargetFunctionArn": {"Ref": "Function"}, "Qualifier": LIVE}
        resources["Url"] = {"Type": "AWS::Lambda::Url", "DependsOn": "Live", "Properties": {**alias_arguments, **url}}
        if settings.url == "public":
            for key, permission in PUBLIC_PERMISSIONS.items():
                properties = {"FunctionName": {"Ref": "Live"}, "Principal": "*", **permission}
                resources[f"Public{key}"] = {"Type": "AWS::Lambda::Permission", "Properties": properties}
    resources.update(make_trigger_resources(name, settings.triggers))
    parameters = {}
    if not settings.role:
        parameters["RoleArn"] = {"Type": "String", "Description": "The role of the function"}
    if canary is not None and canary[0] is None:
        parameters["LiveVersion"] = {"Type": "String", "Description": "The version that gets the other requests"}
    template: dict[str, Any] = {"AWSTemplateFormatVersion": "2010-09-09"}
    return {**template, **({"Parameters": parameters} if parameters else {}), "Resources": resources}
