"""One AWS Lambda function: its versions, its alias `live`, its URL. Each method makes a few API calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.deploy.aws.canary_metrics import MetricCounts, MetricSource
from mlapp.deploy.aws.session import AwsSession, is_missing_on_aws
from mlapp.deploy.aws_lambda.documents import (
    LIVE,
    PUBLIC_PERMISSIONS,
    RECORD_VARIABLE,
    ReleaseRecord,
    make_function_configuration,
    make_function_url,
)
from mlapp.deploy.target import DeployError

ROLE_ERROR = "cannot be assumed by Lambda"
CONFLICT_CODES = ("ResourceConflictException", "PreconditionFailedException")


class Function:
    """A function of an account. Methods raise `DeployError` if AWS refuses a call."""

    def __init__(self, session: AwsSession, name: str, settings: LambdaSettings) -> None:
        self.session = session
        self.name = name
        self.settings = settings

    @property
    def _client(self) -> Any:
        return self.session.client("lambda")

    def find_function_configuration(self, qualifier: str | None = None) -> dict[str, Any] | None:
        """The configuration of a version or alias, by default of the newest code; None if it does not exist."""
        options = {"Qualifier": qualifier} if qualifier else {}
        return self._call_function_unless_missing(
            self._client.get_function_configuration, FunctionName=self.name, **options
        )

    def find_function_alias(self) -> dict[str, Any] | None:
        """The alias `live`; None if nothing is live."""
        return self._call_function_unless_missing(self._client.get_alias, FunctionName=self.name, Name=LIVE)

    def find_url(self) -> str | None:
        """The URL of the alias."""
        configuration = self._call_function_unless_missing(
            self._client.get_function_url_config, FunctionName=self.name, Qualifier=LIVE
        )
        return str(configuration["FunctionUrl"]) if configuration else None

    def list_versions(self) -> list[dict[str, Any]]:
        """The published versions, oldest first."""
        with self.session.translate_errors():
            from botocore.exceptions import ClientError

            pages = self._client.get_paginator("list_versions_by_function").paginate(FunctionName=self.name)
            try:
                versions = [
                    version for page in pages for version in page["Versions"] if version["Version"] != "$LATEST"
                ]
            except ClientError as error:
                if not is_missing_on_aws(error):
                    raise
                return []
        return sorted(versions, key=lambda version: int(version["Version"]))

    def publish(self, record: ReleaseRecord) -> str:
        """Update the function to a record and publish it as a version; returns the version's number.

        Raises:
            DeployError: AWS refuses, or another deployment is in progress.
        """
        configuration = make_function_configuration(self.settings, record)
        if self.find_function_configuration() is None:
            with self._translate_function_errors():
                self._client.create_function(
                    FunctionName=self.name,
                    PackageType="Image",
                    Code={"ImageUri": record.image},
                    Architectures=[self.settings.architecture],
                    Tags={"mlapp": "true", **self.settings.tags},
                    **configuration,
                )
                self._wait_for_function_state("function_active_v2")
        else:
            with self._translate_function_errors():
                self._wait_for_function_state("function_updated_v2")
                self._client.update_function_code(
                    FunctionName=self.name, ImageUri=record.image, Architectures=[self.settings.architecture]
                )
                self._wait_for_function_state("function_updated_v2")
                self._client.update_function_configuration(FunctionName=self.name, **configuration)
                self._wait_for_function_state("function_updated_v2")
        with self._translate_function_errors():
            revision = _read_function_revision(self._client.get_function_configuration(FunctionName=self.name))
            version = str(self._client.publish_version(FunctionName=self.name, **revision)["Version"])
            self._wait_for_function_state("published_version_active", Qualifier=version)
        return version

    def point_alias(self, version: str, weights: dict[str, float], before: dict[str, Any] | None) -> None:
        """Point `live` at a version, with a share of the requests for other versions.

        Args:
            before: the alias as last read, or None. If it has changed since, nothing is written.

        Raises:
            DeployError: somebody else moved the alias.
        """
        routing = {"AdditionalVersionWeights": weights}
        with self._translate_function_errors():
            if before is None:
                self._client.create_alias(
                    FunctionName=self.name, Name=LIVE, FunctionVersion=version, RoutingConfig=routing
                )
                return
            current = self._client.get_alias(FunctionName=self.name, Name=LIVE)
            if _read_alias_routing(current) != _read_alias_routing(before):
                raise DeployError(
                    f"Another deploy moved the alias {LIVE} of {self.name} to version {current['FunctionVersion']}.",
                    "See `mlapp releases --target lambda`, and deploy again if needed.",
                )
            self._client.update_alias(
                FunctionName=self.name,
                Name=LIVE,
                FunctionVersion=version,
                RoutingConfig=routing,
                **_read_function_revision(current),
            )

    def set_function_url(self) -> str | None:
        """Apply the settings to the URL of `live`; returns the URL."""
        from botocore.exceptions import ClientError

        arguments = make_function_url(self.settings)
        alias_arguments = {"FunctionName": self.name, "Qualifier": LIVE}
        existing = self.find_url()
        with self._translate_function_errors():
            if arguments is None:
                if existing:
                    self._client.delete_function_url_config(**alias_arguments)
                return None
            put_url_config = (
                self._client.update_function_url_config if existing else self._client.create_function_url_config
            )
            url = str(put_url_config(**alias_arguments, **arguments)["FunctionUrl"])
            if self.settings.url == "public":
                for key, permission in PUBLIC_PERMISSIONS.items():
                    try:
                        self._client.add_permission(
                            **alias_arguments, StatementId=f"mlapp{key}", Principal="*", **permission
                        )
                    except ClientError as error:
                        if error.response["Error"].get("Code") != "ResourceConflictException":  # the permission exists
                            raise
        return url

    def set_function_concurrency(self) -> None:
        """Reserve the concurrency in the settings."""
        concurrency = self.settings.concurrency
        with self._translate_function_errors():
            if concurrency is not None:
                self._client.put_function_concurrency(FunctionName=self.name, ReservedConcurrentExecutions=concurrency)
            elif self._call_function_unless_missing(self._client.get_function_concurrency, FunctionName=self.name):
                self._client.delete_function_concurrency(FunctionName=self.name)

    def invoke(self, payload: bytes, qualifier: str) -> tuple[bytes, bool]:
        """The response of a version or alias, and whether the function failed."""
        with self._translate_function_errors():
            response = self._client.invoke(FunctionName=self.name, Qualifier=qualifier, Payload=payload)
            return response["Payload"].read(), bool(response.get("FunctionError"))

    def delete_version(self, version: str) -> None:
        with self._translate_function_errors():
            self._client.delete_function(FunctionName=self.name, Qualifier=version)

    def delete(self) -> None:
        """Remove the function with its versions, aliases and URL."""
        with self._translate_function_errors():
            self._client.delete_function(FunctionName=self.name)

    def count_requests(self, version: str, start: datetime) -> MetricCounts:
        """A version's counts for requests through the alias `live` since the minute of `start`."""
        dimensions = {"FunctionName": self.name, "Resource": f"{self.name}:{LIVE}", "ExecutedVersion": version}
        source = MetricSource(self.session, "AWS/Lambda", "Invocations", "Errors", "Duration", 0.001)
        return source.read_counts(dimensions, start)

    def _wait_for_function_state(self, waiter: str, **options: Any) -> None:
        self._client.get_waiter(waiter).wait(
            FunctionName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}, **options
        )

    def _call_function_unless_missing(self, call: Any, **options: Any) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        with self.session.translate_errors():
            try:
                response: dict[str, Any] = call(**options)
            except ClientError as error:
                if is_missing_on_aws(error):
                    return None
                raise
        return response

    @contextmanager
    def _translate_function_errors(self) -> Iterator[None]:
        """`AwsSession.translate_errors`, extended for Lambda's errors about roles and concurrent deployments."""
        from botocore.exceptions import ClientError

        with self.session.translate_errors():
            try:
                yield
            except ClientError as error:
                code, text = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
                if ROLE_ERROR in text:
                    raise DeployError(
                        f"Lambda cannot use the role: {text}",
                        "Allow lambda.amazonaws.com to assume it, as in `mlapp eject iam`. "
                        "A new role is usable after some seconds.",
                    ) from error
                if code in CONFLICT_CODES:
                    raise DeployError(
                        f"Another deployment is changing {self.name}: {text}",
                        "Wait until it ends, check `mlapp releases --target lambda`, and deploy again.",
                    ) from error
                raise


def read_version_record(version: dict[str, Any]) -> ReleaseRecord | None:
    """The description of a version; None if mlapp did not publish it."""
    text = version.get("Environment", {}).get("Variables", {}).get(RECORD_VARIABLE)
    try:
        return msgspec.json.decode(text, type=ReleaseRecord) if text else None
    except msgspec.MsgspecError:
        return None


def read_alias_weights(alias: dict[str, Any]) -> dict[str, float]:
    """The share of the requests of each version other than the alias's main one."""
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    return {str(version): float(weight) for version, weight in weights.items()}


def _read_function_revision(response: dict[str, Any]) -> dict[str, str]:
    """The revision in a response about a function or alias. With it, AWS refuses to overwrite a concurrent change."""
    return {"RevisionId": response["RevisionId"]} if response.get("RevisionId") else {}


def _read_alias_routing(alias: dict[str, Any]) -> tuple[str, dict[str, float]]:
    return str(alias["FunctionVersion"]), read_alias_weights(alias)
