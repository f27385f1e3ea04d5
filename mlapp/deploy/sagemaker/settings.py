"""`targets.sagemaker` of mlapp.yaml. docs/reference/sagemaker-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mlapp.config import END, CanaryLimits, Section, describe_text
from mlapp.deploy.cluster.settings import Text


class Vpc(Section, frozen=True):
    """`vpc:` the network of the instances."""

    subnets: Annotated[list[str], Meta(min_length=1, description="Ids of subnets.")]
    security_groups: Annotated[list[str], Meta(min_length=1, description="Ids of security groups.")]


class Scaling(Section, frozen=True):
    """`autoscaling:` the number of instances follows the requests."""

    min: Annotated[int, Meta(ge=1, description="Minimum number of instances.")] = 1
    max: Annotated[int, Meta(ge=1, description="Maximum number of instances.")] = 4
    requests: Annotated[
        int, Meta(ge=1, description="Requests per minute and instance (`SageMakerVariantInvocationsPerInstance`).")
    ] = 600


class SageMakerSettings(Section, frozen=True):
    """`targets.sagemaker`: where and how the app runs on Amazon SageMaker."""

    region: Annotated[str | None, Meta(description="AWS region; by default from the AWS configuration.")] = None
    role: Annotated[
        str | None,
        Meta(description="ARN of the execution role: it may pull the image from ECR and write logs. Required."),
    ] = None
    endpoint: Annotated[
        Annotated[
            str,
            describe_text(
                r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,43}" + END,
                "letters, digits and '-'; at most 44 letters and digits, one of them first and one last",
                "flowers",
            ),
        ]
        | None,
        Meta(description="Name of the endpoint. Defaults to the app's name."),
    ] = None
    repository: Annotated[
        str | None,
        Meta(description="Name of the ECR repository, created when missing. Defaults to the app's name."),
    ] = None
    instance_type: Annotated[
        str,
        describe_text(
            r"^ml\.",
            "a type of SageMaker, which begins with ml.",
            "ml.m5.large",
            description="Type of the instances.",
        ),
    ] = "ml.m5.large"
    instances: Annotated[int, Meta(ge=1, description="Number of instances, without autoscaling.")] = 1
    autoscaling: Annotated[Scaling | None, Meta(description="Scale by load; `{}` uses the defaults.")] = None
    env: Annotated[dict[str, Text], Meta(description="Environment variables of the server. No secrets.")] = {}
    vpc: Annotated[Vpc | None, Meta(description="Network of the instances. Defaults to SageMaker's.")] = None
    tags: Annotated[dict[str, str], Meta(description="Tags of all created resources.")] = {}
    timeout: Annotated[int, Meta(ge=60, description="Seconds until an endpoint must be in service.")] = 1800
    history: Annotated[int, Meta(ge=1, description="Releases to keep for `mlapp rollback`.")] = 10
    canary: CanaryLimits = msgspec.field(default_factory=CanaryLimits)

    @property
    def first_instances(self) -> int:
        """The initial number of instances of a release."""
        return self.autoscaling.min if self.autoscaling else self.instances
