"""`targets.lambda` of mlapp.yaml: settings for the deployment, some of which the function also reads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mlapp.config import END, CanaryLimits, Section, describe_text


class Vpc(Section, frozen=True):
    """The function's network. The function then reaches AWS only through this VPC."""

    subnets: Annotated[list[str], Meta(min_length=1, description="Ids of subnets.")]
    security_groups: Annotated[list[str], Meta(min_length=1, description="Ids of security groups.")]


class S3Trigger(Section, frozen=True):
    """`triggers.s3:` new files in a bucket."""

    bucket: Annotated[str, Meta(min_length=3, description="Name of an existing bucket in the function's region.")]
    prefix: Annotated[str, Meta(description="Prefix of the keys, such as `new/`.")] = ""
    suffix: Annotated[str, Meta(description="Suffix of the keys, such as `.csv`.")] = ""


class SqsTrigger(Section, frozen=True):
    """`triggers.sqs:` messages of a queue."""

    queue: Annotated[str, Meta(min_length=1, description="Name or ARN of an existing queue.")]
    batch: Annotated[int, Meta(ge=1, le=10, description="Maximum number of messages per invocation.")] = 10


class Triggers(Section, frozen=True):
    """`triggers:` events that invoke the live release, in addition to its URL and direct callers."""

    s3: Annotated[S3Trigger | None, Meta(description="New files in a bucket.")] = None
    sqs: Annotated[SqsTrigger | None, Meta(description="Messages of a queue.")] = None
    schedule: Annotated[
        Annotated[
            str,
            describe_text(
                r"^(rate|cron)\(.+\)" + END, "rate(…) or cron(…), as in AWS", "rate(1 hour)", "cron(0 6 * * ? *)"
            ),
        ]
        | None,
        Meta(description="Predict the data of the app's reader: `rate(1 hour)` or `cron(0 6 * * ? *)`, in UTC."),
    ] = None


class LambdaSettings(Section, frozen=True):
    """`targets.lambda`: a function on AWS Lambda."""

    region: Annotated[str | None, Meta(description="AWS region; by default from the AWS configuration.")] = None
    role: Annotated[str | None, Meta(description="ARN of the function's role; see `mlapp eject iam`.")] = None
    function: Annotated[
        Annotated[str, describe_text(r"^[a-zA-Z0-9-_]{1,64}" + END, "1 to 64 letters, digits, '-' and '_'", "flowers")]
        | None,
        Meta(description="Name of the function. Defaults to the app's name."),
    ] = None
    repository: Annotated[
        str | None,
        Meta(description="Name of the ECR repository, created when missing. Defaults to the app's name."),
    ] = None
    architecture: Annotated[Literal["x86_64", "arm64"], Meta(description="CPU architecture of the function.")] = (
        "x86_64"
    )
    memory: Annotated[int, Meta(ge=128, le=10240, description="Memory in MB. More memory comes with more CPU.")] = 1024
    timeout: Annotated[int, Meta(ge=1, le=900, description="Maximum seconds per invocation.")] = 30
    storage: Annotated[int, Meta(ge=512, le=10240, description="MB of /tmp.")] = 512
    url: Annotated[
        Literal["iam", "public", "none"],
        Meta(
            description="Function URL: `iam` requires signed requests, `public` allows everyone, `none` creates no URL."
        ),
    ] = "iam"
    streaming: Annotated[
        bool,
        Meta(
            description="Stream answers from the function URL: for predictors that yield, and for answers of more "
            "than 6 MB."
        ),
    ] = False
    output: Annotated[
        Annotated[
            str, describe_text(r"^s3://[^/]+(/.*)?" + END, "s3://, a bucket, and optionally a path", "s3://bucket/out")
        ]
        | None,
        Meta(
            description="Where predictions for files, messages and schedules go, such as `s3://bucket/predictions`. "
            "When absent, those for files go to `predictions/` in their own bucket."
        ),
    ] = None
    triggers: Annotated[
        Triggers, Meta(description="Triggers of the live release, besides its URL and direct calls.")
    ] = msgspec.field(default_factory=Triggers)
    concurrency: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Reserved concurrency. By default, the function shares the account's."),
    ] = None
    env: Annotated[dict[str, str], Meta(description="Environment variables of the function. No secrets.")] = {}
    vpc: Annotated[Vpc | None, Meta(description="Network of the function.")] = None
    tags: Annotated[dict[str, str], Meta(description="Tags of the function and the repository.")] = {}
    canary: CanaryLimits = msgspec.field(default_factory=CanaryLimits)
