"""The registry of an AWS account (ECR): an app's repository and the login."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from mlapp.deploy.abilities import RegistryPlace
from mlapp.deploy.aws.session import AwsSession, is_missing_on_aws
from mlapp.reporting import Reporter


def name_ecr_repository(app: str) -> str:
    """The default repository name of an app: ECR allows lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", app.lower()).strip("-")


def open_ecr_repository(session: AwsSession, name: str, tags: Mapping[str, str], progress: Reporter) -> RegistryPlace:
    """The app's repository, created if missing, and a login that is valid for twelve hours.

    Raises:
        DeployError: AWS refuses; the message names a missing permission.
    """
    from botocore.exceptions import ClientError

    client = session.client("ecr")
    with session.translate_errors():
        try:
            repository = client.describe_repositories(repositoryNames=[name])["repositories"][0]
        except ClientError as error:
            if not is_missing_on_aws(error):
                raise
            progress(f"create the repository {name} in ECR")
            repository = client.create_repository(
                repositoryName=name,
                imageScanningConfiguration={"scanOnPush": True},
                tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )["repository"]
        login: dict[str, Any] = client.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(login["authorizationToken"]).decode().partition(":")
    return RegistryPlace(repository["repositoryUri"], user, password)
