"""AWS clients, with errors in the user's terms: an error about a missing permission names the IAM action."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from mlapp.deploy.target import DeployError
from mlapp.errors import MissingExtraError

DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "UnauthorizedAccess")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException")
ACTION = re.compile(r"not authorized to perform: ([\w-]+:\w+)")
PREFIXES = {"logs": "logs", "cloudwatch": "cloudwatch", "sts": "sts", "ecr": "ecr", "lambda": "lambda", "iam": "iam"}
"""Maps boto3's service names to IAM's."""


class AwsSession:
    """The account in the AWS configuration: `AWS_PROFILE`, `AWS_REGION`, `~/.aws`, or the machine's role.

    Args:
        region: overrides the configured region.
        feature: the feature that needs boto3, for the error if it is not installed.
        target: the name of the target, for errors.
    """

    def __init__(self, region: str | None, feature: str, target: str) -> None:
        self._region = region
        self._feature = feature
        self._target = target
        self._clients: dict[str, Any] = {}

    @cached_property
    def _session(self) -> Any:
        try:
            import boto3
        except ModuleNotFoundError:
            raise MissingExtraError(self._feature, "aws") from None
        return boto3.session.Session(region_name=self._region)

    @property
    def region(self) -> str:
        """The region.

        Raises:
            DeployError: none is configured.
        """
        region = self._session.region_name
        if not region:
            raise DeployError("No AWS region is set.", f"Set targets.{self._target}.region, or AWS_REGION.")
        return str(region)

    def client(self, service: str) -> Any:
        """A client of a service. Call its methods inside `translate_errors`."""
        if service not in self._clients:
            self._clients[service] = self._session.client(service, region_name=self.region)
        return self._clients[service]

    @cached_property
    def account(self) -> str:
        """The account ID.

        Raises:
            DeployError: there are no credentials, or they are invalid.
        """
        with self.translate_errors():
            return str(self.client("sts").get_caller_identity()["Account"])

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn AWS errors inside the block, including `ResourceNotFound`, into DeployError.

        Raises:
            DeployError: names the missing action, or repeats AWS's message.
        """
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            raise self.explain_error(error) from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise DeployError(
                f"There are no AWS credentials: {error}", "Log in: aws sso login, or set AWS_PROFILE."
            ) from error
        except exceptions.EndpointConnectionError as error:
            raise DeployError(
                f"AWS cannot be reached in the region {self.region}: {error}",
                f"Check that the service exists there (targets.{self._target}.region), and the network.",
            ) from error
        except exceptions.WaiterError as error:
            raise DeployError(
                f"AWS did not finish in time: {error}", f"See `mlapp status --target {self._target}`."
            ) from error
        except exceptions.BotoCoreError as error:
            raise DeployError(f"AWS: {error}", "Check the AWS configuration and the network.") from error

    def explain_error(self, error: Any) -> DeployError:
        """An AWS error in the user's terms."""
        code, text = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in DENIED or "not authorized to perform" in text:
            match = ACTION.search(text)
            action = match[1] if match else f"{self._find_iam_prefix(error)}:{error.operation_name}"
            return DeployError(
                f"Your AWS identity lacks the permission {action}: {text}",
                f"Ask an administrator to grant {action}; `mlapp eject iam --target {self._target}` prints all "
                f"permissions.",
            )
        if code in EXPIRED:
            return DeployError(f"AWS does not accept the credentials: {text}", "Log in again: aws sso login.")
        return DeployError(
            f"AWS refused {error.operation_name}: {text or code}", "Fix the cause named above, and try again."
        )

    def _find_iam_prefix(self, error: Any) -> str:
        """The service's IAM prefix, from the client that has the operation."""
        for service, client in self._clients.items():
            if error.operation_name in client.meta.service_model.operation_names:
                return PREFIXES.get(service, service)
        return "aws"


def is_missing_on_aws(error: Any) -> bool:
    """Whether a `ClientError` means that the object does not exist."""
    return error.response["Error"].get("Code") in ("ResourceNotFoundException", "RepositoryNotFoundException")
