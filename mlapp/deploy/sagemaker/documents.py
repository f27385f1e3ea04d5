"""SageMaker's requests for a release, as plain data: deterministic, without network access.

SageMaker runs the image with the argument `serve` and sends requests to `/ping` and `/invocations` on port 8080:
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. A release's record is stored in
the tags of its Model as base64, because tag values allow no braces and quotes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from mlapp.config import Serve
from mlapp.deploy.cluster.server_environment import format_server_variable
from mlapp.deploy.release_record import ReleaseRecord
from mlapp.deploy.sagemaker.settings import SageMakerSettings
from mlapp.errors import ConfigError
from mlapp.secret_variables import refuse_secret_variables

PORT = 8080
APP_TAG = "mlapp:app"
STATE_TAG = "mlapp:state"
RECORD_TAG = "mlapp:record:"
MAX_TAG_LENGTH = 256
"""Maximum characters of a tag's value."""
MAX_TAG_COUNT = 20


def name_endpoint(app: str, settings: SageMakerSettings) -> str:
    """The endpoint's name: at most 44 letters, digits and hyphens, so that a release's number fits after it."""
    return settings.endpoint or re.sub(r"[^a-zA-Z0-9]+", "-", app).strip("-")[:44].strip("-") or "app"


def name_endpoint_variant(number: int) -> str:
    """The variant that runs a release."""
    return f"r{number}"


def name_endpoint_release(endpoint: str, number: int) -> str:
    """Name of a release's Model, and of the configuration that gives it all traffic."""
    return f"{endpoint}-r{number}"


def name_canary_config(endpoint: str, live: int, number: int) -> str:
    """Name of the configuration that splits the traffic between two releases."""
    return f"{endpoint}-r{live}-r{number}"


def make_endpoint_variables(settings: SageMakerSettings, serve: Serve) -> dict[str, str]:
    """The server's variables.

    Raises:
        ConfigError: `serve.api_keys` is set, or a variable looks like a secret: everyone with permission to describe
            a Model can read them.
    """
    if serve.api_keys:
        raise ConfigError(
            "serve.api_keys does nothing on SageMaker: IAM decides who may invoke an endpoint.",
            "Leave serve.api_keys out for this environment.",
        )
    user_variables = {name: format_server_variable(value) for name, value in settings.env.items()}
    refuse_secret_variables(
        "targets.sagemaker.env", user_variables, "in the Model", "Read it from AWS Secrets Manager instead."
    )
    settings_values, default = msgspec.to_builtins(serve), msgspec.to_builtins(Serve())
    variables = {
        f"MLAPP_SERVE__{name.upper()}": format_server_variable(value)
        for name, value in settings_values.items()
        if value != default[name] and name not in ("api_keys", "host", "port", "tls_cert", "tls_key", "grpc_port")
    }
    variables.update(MLAPP_SERVE__HOST="0.0.0.0", MLAPP_SERVE__PORT=str(PORT))  # noqa: S104  every address
    return dict(sorted({**variables, **user_variables}.items()))


def make_endpoint_model(
    endpoint: str, settings: SageMakerSettings, serve: Serve, record: ReleaseRecord
) -> dict[str, Any]:
    """The CreateModel request, without tags.

    Raises:
        ConfigError: no execution role is set.
    """
    model: dict[str, Any] = {
        "ModelName": name_endpoint_release(endpoint, record.number),
        "PrimaryContainer": {"Image": record.image, "Environment": make_endpoint_variables(settings, serve)},
        "ExecutionRoleArn": settings.role,
    }
    if settings.vpc is not None:
        model["VpcConfig"] = {"Subnets": settings.vpc.subnets, "SecurityGroupIds": settings.vpc.security_groups}
    return model


def make_endpoint_config(endpoint: str, settings: SageMakerSettings, weights: Mapping[int, int]) -> dict[str, Any]:
    """The CreateEndpointConfig request, with a variant per release; `weights` is traffic in percent by release."""
    numbers = list(weights)
    name = (
        name_endpoint_release(endpoint, numbers[0])
        if len(numbers) == 1
        else name_canary_config(endpoint, numbers[0], numbers[1])
    )
    return {
        "EndpointConfigName": name,
        "ProductionVariants": [
            {
                "VariantName": name_endpoint_variant(number),
                "ModelName": name_endpoint_release(endpoint, number),
                "InstanceType": settings.instance_type,
                "InitialInstanceCount": settings.first_instances,
                "InitialVariantWeight": float(share),
            }
            for number, share in weights.items()
        ],
    }


def make_endpoint_template(
    endpoint: str,
    settings: SageMakerSettings,
    serve: Serve,
    record: ReleaseRecord,
    canary: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A CloudFormation template of a release; `canary` is the live release's number and the canary's percentage."""
    model = make_endpoint_model(endpoint, settings, serve, record)
    if settings.role is None:
        model["ExecutionRoleArn"] = {"Ref": "ExecutionRoleArn"}
    weights = {record.number: 100} if canary is None else {canary[0]: 100 - canary[1], record.number: canary[1]}
    config = make_endpoint_config(endpoint, settings, weights)
    resources: dict[str, Any] = {
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": model},
        "EndpointConfig": {"Type": "AWS::SageMaker::EndpointConfig", "DependsOn": "Model", "Properties": config},
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "DependsOn": "EndpointConfig",
            "Properties": {"EndpointName": endpoint, "EndpointConfigName": config["EndpointConfigName"]},
        },
    }
    if settings.autoscaling is not None:
        for number in weights:
            target = make_scalable_target(endpoint, settings, number)
            resources[f"ScalableTarget{number}"] = {
                "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
                "DependsOn": "Endpoint",
                "Properties": target,
            }
            resources[f"ScalingPolicy{number}"] = {
                "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
                "DependsOn": f"ScalableTarget{number}",
                "Properties": make_scaling_policy(endpoint, settings, number),
            }
    template: dict[str, Any] = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}
    if settings.role is None:
        template["Parameters"] = {"ExecutionRoleArn": {"Type": "String"}}
    return template


def make_scalable_target(endpoint: str, settings: SageMakerSettings, number: int) -> dict[str, Any]:
    """The RegisterScalableTarget request for a release's variant."""
    assert settings.autoscaling is not None
    return {
        **identify_endpoint_scaling(endpoint, number),
        "MinCapacity": settings.autoscaling.min,
        "MaxCapacity": settings.autoscaling.max,
    }


def make_scaling_policy(endpoint: str, settings: SageMakerSettings, number: int) -> dict[str, Any]:
    """The PutScalingPolicy request: scale by the number of requests per instance."""
    assert settings.autoscaling is not None
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    return {
        "PolicyName": f"{name_endpoint_release(endpoint, number)}-requests",
        "PolicyType": "TargetTrackingScaling",
        **identify_endpoint_scaling(endpoint, number),
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": float(settings.autoscaling.requests),
            "PredefinedMetricSpecification": metric,
        },
    }


def identify_endpoint_scaling(endpoint: str, number: int) -> dict[str, str]:
    """Application Auto Scaling's identifiers of a release's variant."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{name_endpoint_variant(number)}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def make_endpoint_tags(
    app: str, settings: SageMakerSettings, record: ReleaseRecord | None = None
) -> list[dict[str, str]]:
    """Tags that identify the app; for a Model, also its release."""
    tags = {**settings.tags, APP_TAG: app}
    if record is not None:
        text = _encode_release_tags(record)
        if len(text) > MAX_TAG_LENGTH * MAX_TAG_COUNT:
            text = _encode_release_tags(msgspec.structs.replace(record, example=None))
        tags.update(
            {
                f"{RECORD_TAG}{start // MAX_TAG_LENGTH}": text[start : start + MAX_TAG_LENGTH]
                for start in range(0, len(text), MAX_TAG_LENGTH)
            }
        )
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def read_release_tags(tags: list[dict[str, str]]) -> tuple[ReleaseRecord, str | None] | None:
    """A release and its state, from a Model's tags; None if mlapp did not create the Model."""
    values = {tag["Key"]: tag["Value"] for tag in tags}
    parts = [key for key in values if key.startswith(RECORD_TAG)]
    if not parts:
        return None
    text = "".join(values[key] for key in sorted(parts, key=lambda key: int(key.rpartition(":")[2])))
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=ReleaseRecord), values.get(STATE_TAG)
    except (ValueError, msgspec.MsgspecError):
        return None


def _encode_release_tags(record: ReleaseRecord) -> str:
    return base64.urlsafe_b64encode(json.dumps(msgspec.to_builtins(record)).encode()).decode()
