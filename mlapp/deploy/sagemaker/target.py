"""SageMakerTarget: run an app's image behind an endpoint of Amazon SageMaker.

| mlapp | SageMaker |
|---|---|
| release | a Model, and a configuration that gives it all traffic |
| the live release | the variant with the larger weight of the endpoint's configuration |
| canary | a second variant, by its weight |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar

from mlapp.deploy.abilities import CompareQuality, RegistryPlace
from mlapp.deploy.aws.canary_metrics import MetricCounts, MetricSource, watch_canary_metrics
from mlapp.deploy.aws.ecr import name_ecr_repository, open_ecr_repository
from mlapp.deploy.aws.logs import read_log_group
from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.canary_watch import compare_canary_quality
from mlapp.deploy.release_record import ReleaseRecord, make_release_record
from mlapp.deploy.sagemaker import documents
from mlapp.deploy.sagemaker.deployment import Deployment
from mlapp.deploy.sagemaker.endpoint import Endpoint
from mlapp.deploy.sagemaker.iam import make_endpoint_iam_template
from mlapp.deploy.sagemaker.settings import SageMakerSettings
from mlapp.deploy.target import DeployError, LogLine, Release, Replica, Shipment, State, Status, Target, ignore_progress
from mlapp.deploy.yaml_dump import diff_yaml
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

JUDGE_PAUSE = 30.0
"""Polling interval in seconds for a canary's metrics, which have one data point per minute."""


class SageMakerTarget(Target[SageMakerSettings]):
    """An endpoint, and the releases that it can roll back to."""

    name: ClassVar[str] = "sagemaker"
    settings_type = SageMakerSettings
    checked_unconfigured = False
    platforms: Sequence[str] = ("linux/amd64",)

    @cached_property
    def _endpoint(self) -> Endpoint:
        session = AwsSession(self.settings.region, "Deploying to Amazon SageMaker", self.name)
        return Endpoint(session, self.app, documents.name_endpoint(self.app, self.settings), self.settings)

    def check(self) -> str:
        """The account and region. Checks that the execution role is set."""
        self._require_role()
        documents.make_endpoint_variables(self.settings, self.serve)
        session = self._endpoint.session
        return f"AWS account {session.account}, region {session.region}"

    def open_registry(self, progress: Reporter = ignore_progress) -> RegistryPlace:
        """The app's repository in ECR, the only registry that SageMaker pulls from."""
        return open_ecr_repository(self._endpoint.session, self.repository_name, self.settings.tags, progress)

    @property
    def repository_name(self) -> str:
        """The name of the ECR repository."""
        return self.settings.repository or name_ecr_repository(self.app)

    def iam(self) -> dict[str, Any]:
        """A CloudFormation template with the endpoint's minimal role and the deployer's permissions."""
        return make_endpoint_iam_template(
            documents.name_endpoint(self.app, self.settings), self.repository_name, self.settings
        )

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """A CloudFormation template of the deployment, as release 1."""
        return [self._make_sagemaker_template(shipment, 1)]

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The template with two weighted variants, as release 2 beside release 1."""
        return [self._make_sagemaker_template(shipment, 2, (1, percent))]

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        """A unified diff from the live release's Model to the planned one."""
        live = self._endpoint.find_numbers()[0]
        current: dict[str, Any] = {}
        if live is not None:
            with self._endpoint.session.translate_errors():
                name = documents.name_endpoint_release(self._endpoint.name, live)
                response = self._endpoint.client.describe_model(ModelName=name)
            current = self._describe_sagemaker_model(response["PrimaryContainer"], response["ExecutionRoleArn"])
        model = documents.make_endpoint_model(
            self._endpoint.name, self.settings, self.serve, make_release_record(shipment, 0)
        )
        planned = self._describe_sagemaker_model(model["PrimaryContainer"], model["ExecutionRoleArn"])
        return diff_yaml(current, planned, f"{self._endpoint.name} (on AWS)", f"{self._endpoint.name} (to be)")

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        """Start the release's instances beside the live ones, and stop the live ones once the release answers."""
        return self._ship_to_sagemaker(shipment, None, progress)

    def status(self) -> Status:
        """The state of the app."""
        endpoint = self._endpoint
        current = endpoint.describe()
        releases = {release.number: release for release in self.releases()}
        live, canary = endpoint.find_numbers(current)
        problems, replicas, traffic = [], [], {}
        if current is not None:
            if current["EndpointStatus"] != "InService":
                problems.append(f"the endpoint is {current['EndpointStatus']}")
            if reason := current.get("FailureReason"):
                problems.append(str(reason))
            variants = current.get("ProductionVariants") or []
            total = sum(float(variant.get("CurrentWeight") or 0) for variant in variants)
            for variant in variants:
                number = int(variant["VariantName"][1:])
                traffic[number] = round(100 * float(variant.get("CurrentWeight") or 0) / total) if total else 0
                for index in range(int(variant.get("CurrentInstanceCount") or 0)):
                    ready = current["EndpointStatus"] == "InService"
                    name = f"{variant['VariantName']}/{index}"
                    replicas.append(Replica(name, ready, current["EndpointStatus"], number))
        scaling = self.settings.autoscaling
        return Status(
            app=self.app,
            target=self.name,
            release=releases.get(live) if live is not None else None,
            canary=releases.get(canary) if canary is not None else None,
            desired=len(replicas),
            ready=sum(replica.ready for replica in replicas),
            replicas=tuple(replicas),
            traffic=traffic,
            url=self._url if current is not None else None,
            scaling=f"{scaling.min} to {scaling.max} instances" if scaling else None,
            problems=tuple(problems),
            place=f"AWS region {endpoint.session.region}, endpoint {endpoint.name}",
        )

    def releases(self) -> list[Release]:
        """The releases that still have a Model, oldest first."""
        live, canary = self._endpoint.find_numbers()
        return [
            self._make_sagemaker_release(record, self._find_sagemaker_state(record.number, state, live, canary))
            for record, state in self._endpoint.list_records()
        ]

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Run an earlier release's image again, as a new release."""
        live, _ = self._endpoint.find_numbers()
        records = {record.number: record for record, state in self._endpoint.list_records() if state is None}
        earlier = [number for number in records if live is None or number < live]
        if to is None and not earlier:
            raise DeployError(
                "There is no earlier release to go back to.", "Deploy a second release first; see `mlapp releases`."
            )
        number = earlier[-1] if to is None else to
        if number not in records:
            number_list = ", ".join(map(str, records)) or "none"
            raise DeployError(f"There is no release {number}.", f"Releases: {number_list}. See `mlapp releases`.")
        return self._ship_to_sagemaker(records[number].make_shipment(self.app), f"rollback to {number}", progress)

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        """Remove the endpoint, its Models and configurations. The images stay in ECR."""
        endpoint = self._endpoint
        live, canary = self._endpoint.find_numbers()
        records = endpoint.list_records()
        removed = [f"Endpoint/{endpoint.name}"] if endpoint.delete_endpoint() else []
        if canary is not None and live is not None:
            name = documents.name_canary_config(endpoint.name, live, canary)
            removed += [f"EndpointConfig/{name}"] if endpoint.delete_config(name) else []
        for record, _ in records:
            removed += endpoint.delete_release(record.number)
        for name in removed:
            progress(f"{name} removed")
        return removed

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        """Log lines of all instances, from CloudWatch Logs."""
        endpoint = self._endpoint
        group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
        return read_log_group(endpoint.session, group, follow=follow, tail=tail, since=since)

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The endpoint's response to InvokeEndpoint."""
        return self._endpoint.invoke(RequestBody.of(inputs))

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Reporter = ignore_progress, take_over: bool = False
    ) -> Release:
        """Start a second variant with `percent` of the weight; it gets traffic once its instances are in service."""
        self._require_role()
        return self._make_sagemaker_release(self._open_deployment(progress).start_canary(shipment, percent), "canary")

    def promote(self, *, progress: Reporter = ignore_progress) -> Release:
        """Route all traffic to the canary, then stop the live release's instances."""
        return self._find_release(self._open_deployment(progress).promote_canary())

    def abort(self, *, progress: Reporter = ignore_progress) -> Release:
        """Route all traffic to the live release, then stop the canary's instances."""
        return self._find_release(self._open_deployment(progress).abort_canary())

    def judge(
        self, seconds: float, *, progress: Reporter = ignore_progress, compare_quality: CompareQuality | None = None
    ) -> Release:
        """Watch both variants' CloudWatch metrics, then promote or abort."""
        live, canary = self._endpoint.require_canary()
        start = datetime.now(timezone.utc)
        reason = watch_canary_metrics(
            lambda: self._read_sagemaker_counts(live, start),
            lambda: self._read_sagemaker_counts(canary, start),
            lambda: compare_canary_quality(compare_quality, self._find_release(live), self._find_release(canary)),
            self.settings.canary,
            seconds,
            JUDGE_PAUSE,
            progress,
        )
        if reason is None:
            return self.promote(progress=progress)
        self.abort(progress=progress)
        raise DeployError(
            f"The canary, release {canary}, was aborted: {reason}. Release {live} serves all traffic.",
            "`mlapp logs` shows the instances; targets.sagemaker.canary sets the limits.",
        )

    @property
    def _url(self) -> str:
        endpoint = self._endpoint
        return (
            f"https://runtime.sagemaker.{endpoint.session.region}.amazonaws.com/endpoints/{endpoint.name}/invocations"
        )

    def _require_role(self) -> None:
        if self.settings.role is None:
            raise DeployError(
                "targets.sagemaker.role is missing: SageMaker pulls the image and writes logs with an execution role.",
                "Set its ARN. `mlapp eject iam --target sagemaker` prints a template of the minimal role.",
            )

    def _make_sagemaker_template(
        self, shipment: Shipment, number: int, canary: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        endpoint = documents.name_endpoint(self.app, self.settings)
        record = make_release_record(shipment, number)
        return documents.make_endpoint_template(endpoint, self.settings, self.serve, record, canary)

    def _describe_sagemaker_model(self, container: dict[str, Any], role: str | None) -> dict[str, Any]:
        return {"image": container["Image"], "environment": container.get("Environment") or {}, "role": role}

    def _find_sagemaker_state(self, number: int, recorded: str | None, live: int | None, canary: int | None) -> State:
        if number == live:
            return "live"
        if number == canary:
            return "canary"
        if recorded == "failed":
            return "failed"
        return "aborted" if recorded == "aborted" else "superseded"

    def _open_deployment(self, progress: Reporter) -> Deployment:
        return Deployment(self._endpoint, self.serve, progress)

    def _ship_to_sagemaker(self, shipment: Shipment, note: str | None, progress: Reporter) -> Release:
        self._require_role()
        return self._make_sagemaker_release(self._open_deployment(progress).ship_release(shipment, note), "live")

    def _find_release(self, number: int) -> Release:
        return next(release for release in self.releases() if release.number == number)

    def _make_sagemaker_release(self, record: ReleaseRecord, state: State) -> Release:
        return record.make_release(self.app, self.name, state, self._url)

    def _read_sagemaker_counts(self, number: int, start: datetime) -> MetricCounts:
        dimensions = {"EndpointName": self._endpoint.name, "VariantName": documents.name_endpoint_variant(number)}
        metrics = ("Invocations", "Invocation5XXErrors", "ModelLatency")  # latency is in microseconds
        return MetricSource(self._endpoint.session, "AWS/SageMaker", *metrics, 1e-6).read_counts(dimensions, start)
