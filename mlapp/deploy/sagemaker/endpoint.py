"""One SageMaker endpoint through boto3: its models and configurations, and waiting for changes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.release_record import ReleaseRecord
from mlapp.deploy.sagemaker import documents
from mlapp.deploy.sagemaker.settings import SageMakerSettings
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

PAUSE = 10.0
"""Polling interval in seconds for an endpoint: starting instances takes minutes."""
READY = "InService"
CONFLICT = re.compile(r"already existing|already exists|in-progress|in progress")
BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")


class ConcurrentDeployError(DeployError):
    """Another deploy is changing the endpoint. This one has not changed the live release."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(
            f"Another deploy of the endpoint {endpoint} is in progress ({reason}); nothing was changed.",
            "Wait until it has ended, check `mlapp releases`, and deploy again.",
        )


class Endpoint:
    """The endpoint `name` of an account and region."""

    def __init__(self, session: AwsSession, app: str, name: str, settings: SageMakerSettings) -> None:
        self.session = session
        self.app = app
        self.name = name
        self.settings = settings

    @property
    def client(self) -> Any:
        """SageMaker's client."""
        return self.session.client("sagemaker")

    def describe(self) -> dict[str, Any] | None:
        """The endpoint, or None."""
        from botocore.exceptions import ClientError

        with self.session.translate_errors():
            try:
                endpoint: dict[str, Any] = self.client.describe_endpoint(EndpointName=self.name)
            except ClientError as error:
                if "Could not find" in error.response["Error"].get("Message", ""):
                    return None
                raise
            return endpoint

    def list_records(self) -> list[tuple[ReleaseRecord, str | None]]:
        """The releases with their recorded states, oldest first."""
        records = []
        with self.session.translate_errors():
            pages = self.client.get_paginator("list_models").paginate(NameContains=f"{self.name}-r")
            for page in pages:
                for model in page["Models"]:
                    if not model["ModelName"].startswith(f"{self.name}-r"):
                        continue
                    tags = self.client.list_tags(ResourceArn=model["ModelArn"])["Tags"]
                    if (record := documents.read_release_tags(tags)) is not None:
                        records.append(record)
        return sorted(records, key=lambda entry: entry[0].number)

    def find_numbers(self, current: dict[str, Any] | None = None) -> tuple[int | None, int | None]:
        """The numbers of the live release and the canary, from the name of the endpoint's configuration.

        Raises:
            DeployError: mlapp did not create the endpoint's configuration.
        """
        current = current or self.describe()
        if current is None:
            return None, None
        match = re.fullmatch(rf"{re.escape(self.name)}-r(\d+)(?:-r(\d+))?", current["EndpointConfigName"])
        if match is None:
            raise DeployError(
                f"The endpoint {self.name} runs {current['EndpointConfigName']}, which was not created by mlapp.",
                "Set targets.sagemaker.endpoint to another name, or delete that endpoint.",
            )
        return int(match[1]), int(match[2]) if match[2] else None

    def require_canary(self) -> tuple[int, int]:
        """The numbers of the live release and of the canary.

        Raises:
            DeployError: there is no canary.
        """
        live, canary = self.find_numbers()
        if live is None or canary is None:
            raise DeployError("There is no canary.", "Start one: `mlapp deploy --target sagemaker --canary 10`.")
        return live, canary

    def create_model(self, serve: Any, record: ReleaseRecord) -> None:
        """Create a release's Model and the configuration that gives it all traffic.

        Raises:
            ConcurrentDeployError: another deploy has created the release with this number.
        """
        with self._translate_endpoint_conflicts():
            self.client.create_model(
                **documents.make_endpoint_model(self.name, self.settings, serve, record),
                Tags=documents.make_endpoint_tags(self.app, self.settings, record),
            )
        self.create_config({record.number: 100})

    def create_config(self, weights: Mapping[int, int]) -> str:
        """Create a configuration, replacing one of the same name; returns the name."""
        config = documents.make_endpoint_config(self.name, self.settings, weights)
        name = str(config["EndpointConfigName"])
        self.delete_config(name)
        with self.session.translate_errors():
            self.client.create_endpoint_config(**config, Tags=documents.make_endpoint_tags(self.app, self.settings))
        return name

    def switch_config(self, config: str, numbers: Iterable[int], progress: Reporter) -> None:
        """Switch to a configuration, and wait until the endpoint is in service with it.

        SageMaker starts the new instances first, shifts the traffic, and stops the old ones; if the new ones do not
        start, it rolls back by itself.

        Raises:
            ConcurrentDeployError: another deploy is updating the endpoint.
            DeployError: the endpoint did not come into service; includes SageMaker's message.
        """
        current = self.describe()
        with self._translate_endpoint_conflicts():
            if current is None:
                progress(f"create the endpoint {self.name}")
                tags = documents.make_endpoint_tags(self.app, self.settings)
                self.client.create_endpoint(EndpointName=self.name, EndpointConfigName=config, Tags=tags)
            else:
                self._remove_endpoint_scaling(current)
                progress(f"update the endpoint {self.name}")
                self.client.update_endpoint(EndpointName=self.name, EndpointConfigName=config)
        self._wait_until_endpoint_in_service(config, progress)
        self._add_endpoint_scaling(numbers)

    def set_weights(self, weights: Mapping[int, int]) -> None:
        """Change the traffic shares of the running variants immediately."""
        shares = [
            {"VariantName": documents.name_endpoint_variant(number), "DesiredWeight": float(share)}
            for number, share in weights.items()
        ]
        with self._translate_endpoint_conflicts():
            self.client.update_endpoint_weights_and_capacities(
                EndpointName=self.name, DesiredWeightsAndCapacities=shares
            )

    def invoke(self, body: RequestBody, variant: str | None = None) -> dict[str, Any]:
        """The response of `/invocations`.

        Raises:
            DeployError: the model answers with an error, or without predictions.
        """
        options = {"TargetVariant": variant} if variant else {}
        with self.session.translate_errors():
            response = self.session.client("sagemaker-runtime").invoke_endpoint(
                EndpointName=self.name,
                ContentType=body.media_type,
                Accept="application/json",
                Body=body.content,
                **options,
            )
            text = response["Body"].read()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "predictions" not in answer:
            raise DeployError(
                f"The endpoint {self.name} answered with no predictions: {text[:300]!r}",
                "`mlapp logs` shows what the server says.",
            )
        return answer

    def record_state(self, number: int, state: str) -> None:
        """Record a release's final state in its Model's tags."""
        with suppress(DeployError), self.session.translate_errors():
            arn = self.client.describe_model(ModelName=documents.name_endpoint_release(self.name, number))["ModelArn"]
            self.client.add_tags(ResourceArn=arn, Tags=[{"Key": documents.STATE_TAG, "Value": state}])

    def delete_config(self, name: str) -> bool:
        """Remove a configuration; False if it does not exist."""
        return self._delete_endpoint_unless_missing(lambda: self.client.delete_endpoint_config(EndpointConfigName=name))

    def delete_release(self, number: int) -> list[str]:
        """Remove a release's Model and configuration; returns the removed names."""
        name = documents.name_endpoint_release(self.name, number)
        removed = [f"EndpointConfig/{name}"] if self.delete_config(name) else []
        if self._delete_endpoint_unless_missing(lambda: self.client.delete_model(ModelName=name)):
            removed.append(f"Model/{name}")
        return removed

    def delete_endpoint(self) -> bool:
        """Remove the endpoint and its scaling; False if it does not exist."""
        current = self.describe()
        if current is None:
            return False
        self._remove_endpoint_scaling(current)
        return self._delete_endpoint_unless_missing(lambda: self.client.delete_endpoint(EndpointName=self.name))

    @contextmanager
    def _translate_endpoint_conflicts(self) -> Iterator[None]:
        """`translate_errors`, extended for SageMaker's errors about concurrent deploys."""
        from botocore.exceptions import ClientError

        with self.session.translate_errors():
            try:
                yield
            except ClientError as error:
                text = error.response["Error"].get("Message", "")
                if CONFLICT.search(text):
                    raise ConcurrentDeployError(self.name, text) from error
                raise

    def _delete_endpoint_unless_missing(self, call: Any) -> bool:
        from botocore.exceptions import ClientError

        with self.session.translate_errors():
            try:
                call()
            except ClientError as error:
                if "Could not find" in error.response["Error"].get("Message", ""):
                    return False
                raise
        return True

    def _wait_until_endpoint_in_service(self, config: str, progress: Reporter) -> None:
        end, last_status = time.monotonic() + self.settings.timeout, ""
        while True:
            current = self.describe()
            if current is None:
                raise DeployError(f"The endpoint {self.name} was deleted.", "Ask who deleted it, and deploy again.")
            status = current["EndpointStatus"]
            if status != last_status:
                last_status = status
                progress(f"{self.name}: {status}")
            if status == READY and current["EndpointConfigName"] == config:
                return
            if status not in BUSY:
                reason = (
                    current.get("FailureReason") or f"the endpoint is {status} with {current['EndpointConfigName']}"
                )
                raise DeployError(
                    f"The endpoint {self.name} did not start: {reason}", "`mlapp logs` shows what the server says."
                )
            if time.monotonic() > end:
                raise DeployError(
                    f"The endpoint {self.name} is still {status} after {self.settings.timeout} s.",
                    "Look at `mlapp status`; targets.sagemaker.timeout sets how long a deploy waits.",
                )
            time.sleep(PAUSE)

    def _add_endpoint_scaling(self, numbers: Iterable[int]) -> None:
        if self.settings.autoscaling is None:
            return
        client = self.session.client("application-autoscaling")
        with self.session.translate_errors():
            for number in numbers:
                client.register_scalable_target(**documents.make_scalable_target(self.name, self.settings, number))
                client.put_scaling_policy(**documents.make_scaling_policy(self.name, self.settings, number))

    def _remove_endpoint_scaling(self, current: Mapping[str, Any]) -> None:
        """Deregister the variants: SageMaker refuses to update an endpoint while a removed variant is registered."""
        if self.settings.autoscaling is None:
            return
        client = self.session.client("application-autoscaling")
        variants = [entry["VariantName"] for entry in current.get("ProductionVariants") or []]
        ids = [f"endpoint/{self.name}/variant/{variant}" for variant in variants]
        if not ids:
            return
        with self.session.translate_errors():
            targets = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=ids)["ScalableTargets"]
            for entry in targets:
                keys = ("ServiceNamespace", "ResourceId", "ScalableDimension")
                client.deregister_scalable_target(**{key: entry[key] for key in keys})
