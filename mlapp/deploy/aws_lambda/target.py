"""LambdaTarget: run an app's image as a function on AWS Lambda.

| mlapp | Lambda |
|---|---|
| release | a published version; both have the same number |
| the live release | the version of the alias `live` |
| canary | a weight of the alias |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar

from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.deploy.abilities import CompareQuality, RegistryPlace
from mlapp.deploy.aws.canary_metrics import watch_canary_metrics
from mlapp.deploy.aws.ecr import name_ecr_repository, open_ecr_repository
from mlapp.deploy.aws.logs import read_log_group
from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.aws_lambda.deployment import Deployment, find_accepted_api_key
from mlapp.deploy.aws_lambda.documents import (
    LIVE,
    describe_function_configuration,
    make_function_configuration,
    make_function_record,
    make_function_template,
    refuse_plain_function_secrets,
)
from mlapp.deploy.aws_lambda.function import Function, read_alias_weights, read_version_record
from mlapp.deploy.aws_lambda.iam import make_function_iam_template
from mlapp.deploy.aws_lambda.invocation import request_function_prediction
from mlapp.deploy.aws_lambda.trigger_documents import refuse_contradictory_triggers
from mlapp.deploy.aws_lambda.triggers import TriggerSet
from mlapp.deploy.canary_watch import compare_canary_quality
from mlapp.deploy.target import DeployError, LogLine, Release, Shipment, State, Status, Target, ignore_progress
from mlapp.deploy.yaml_dump import diff_yaml
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
PAUSE = 15.0
"""Polling interval in seconds for a canary's metrics, which have one data point per minute."""


class LambdaTarget(Target[LambdaSettings]):
    """A function, and its alias `live`."""

    name: ClassVar[str] = "lambda"
    settings_type = LambdaSettings
    checked_unconfigured = False

    @cached_property
    def _function(self) -> Function:
        session = AwsSession(self.settings.region, "Deploying to AWS Lambda", self.name)
        return Function(session, self.function_name, self.settings)

    @property
    def function_name(self) -> str:
        """The function's name. Characters of the app's name that Lambda forbids, such as dots, become hyphens."""
        return self.settings.function or re.sub(r"[^a-zA-Z0-9-_]", "-", self.app)[:64]

    @property
    def repository_name(self) -> str:
        return self.settings.repository or name_ecr_repository(self.app)

    @property
    def platforms(self) -> Sequence[str]:
        return (PLATFORMS[self.settings.architecture],)

    def check(self) -> str:
        session = self._function.session
        self._require_role()
        self._require_triggers()
        refuse_plain_function_secrets(self.settings)
        return f"AWS account {session.account}, region {session.region}"

    def open_registry(self, progress: Reporter = ignore_progress) -> RegistryPlace:
        return open_ecr_repository(self._function.session, self.repository_name, self.settings.tags, progress)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """A CloudFormation template of the deployment."""
        return [
            make_function_template(
                self.function_name, self.settings, make_function_record(shipment, None, self.settings.triggers)
            )
        ]

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The template with the alias's weights. Reads the live version from AWS if possible."""
        record = make_function_record(shipment, None, self.settings.triggers)
        alias = None
        with suppress(DeployError):
            alias = self._function.find_function_alias()
        live = alias["FunctionVersion"] if alias else None
        return [make_function_template(self.function_name, self.settings, record, (live, percent))]

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        function = self._function
        live_configuration = function.find_function_configuration(LIVE) if function.find_function_alias() else None
        record = make_function_record(shipment, None, self.settings.triggers)
        planned = describe_function_configuration(
            self.function_name, make_function_configuration(self.settings, record), record
        )
        current = (
            {}
            if live_configuration is None
            else describe_function_configuration(
                self.function_name, live_configuration, read_version_record(live_configuration)
            )
        )
        return diff_yaml(current, planned, f"{self.function_name} (on AWS)", f"{self.function_name} (to be)")

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        """Publish a version, and make it live once it answers."""
        self._require_role()
        self._require_triggers()
        return self._find_release(self._open_deployment(progress).ship_release(shipment))

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Reporter = ignore_progress, take_over: bool = False
    ) -> Release:
        """Publish a version that gets `percent` of the requests once it answers."""
        return self._find_release(self._open_deployment(progress).start_canary(shipment, percent))

    def judge(
        self, seconds: float, *, progress: Reporter = ignore_progress, compare_quality: CompareQuality | None = None
    ) -> Release:
        """Watch the canary's CloudWatch metrics, which arrive some minutes late; then promote or abort it."""
        alias, version = self._open_deployment(progress).require_canary()
        live, start, function = alias["FunctionVersion"], datetime.now(timezone.utc), self._function
        reason = watch_canary_metrics(
            lambda: function.count_requests(live, start),
            lambda: function.count_requests(version, start),
            lambda: compare_canary_quality(compare_quality, self._find_release(live), self._find_release(version)),
            self.settings.canary,
            seconds,
            PAUSE,
            progress,
        )
        if reason is None:
            return self.promote(progress=progress)
        self.abort(progress=progress)
        raise DeployError(
            f"The canary, release {version}, was aborted: {reason}. Release {live} serves all requests.",
            "`mlapp logs --target lambda` shows its output; targets.lambda.canary sets the limits.",
        )

    def promote(self, *, progress: Reporter = ignore_progress) -> Release:
        """Send all requests to the canary."""
        return self._find_release(self._open_deployment(progress).promote_canary())

    def abort(self, *, progress: Reporter = ignore_progress) -> Release:
        """Send all requests to the live release; the canary's version stays."""
        return replace(self._find_release(self._open_deployment(progress).abort_canary()), state="aborted")

    def status(self) -> Status:
        function = self._function
        alias = function.find_function_alias()
        place = f"AWS account {function.session.account}, region {function.session.region}"
        if alias is None:
            return Status(self.app, self.name, None, place=place)
        releases = {str(release.number): release for release in self.releases()}
        weights, live = read_alias_weights(alias), str(alias["FunctionVersion"])
        configuration = function.find_function_configuration(LIVE) or {}
        state = str(configuration.get("State") or "Active")
        problems = [] if state in ("Active", "Inactive") else [f"{state}: {configuration.get('StateReason', '')}"]
        if live not in releases:
            problems.append(f"The alias live points to version {live}, which mlapp did not publish.")
        traffic = {int(version): round(weight * 100) for version, weight in weights.items()}
        if live.isdigit():
            traffic[int(live)] = 100 - sum(traffic.values())
        return Status(
            app=self.app,
            target=self.name,
            release=releases.get(live),
            canary=next((releases[version] for version in weights if version in releases), None),
            desired=1,
            ready=0 if problems else 1,
            traffic=traffic,
            url=function.find_url(),
            scaling="one instance for each concurrent request"
            + ("" if self.settings.concurrency is None else f", at most {self.settings.concurrency}"),
            problems=tuple(problems),
            place=place,
        )

    def releases(self) -> list[Release]:
        alias = self._function.find_function_alias()
        url = self._function.find_url() if alias else None
        live = str(alias["FunctionVersion"]) if alias else None
        weights = read_alias_weights(alias) if alias else {}
        releases = []
        for version in self._function.list_versions():
            number = version["Version"]
            record = read_version_record(version)
            if record is None:
                continue
            state: State = "live" if number == live else "canary" if number in weights else "superseded"
            created = datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", version["LastModified"]))
            shipment = record.make_shipment(self.app)
            releases.append(
                Release(
                    int(number),
                    self.app,
                    self.name,
                    shipment,
                    created.astimezone(timezone.utc),
                    state,
                    record.by,
                    url=url if state in ("live", "canary") else None,
                )
            )
        return releases

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Point `live` at an earlier version, which keeps its number."""
        deployment = self._open_deployment(progress)
        live = deployment.require_settled_alias()["FunctionVersion"]
        releases = {release.number: release for release in self.releases()}
        earlier_numbers = [number for number in releases if not live.isdigit() or number < int(live)]
        number = to if to is not None else max(earlier_numbers, default=None)
        if number is None or number not in releases:
            number_list = ", ".join(map(str, releases)) or "none"
            raise DeployError(
                f"There is no release {to} of {self.app} to go back to." if to else "There is no earlier release.",
                f"Choose with --to: {number_list}."
                if to
                else "Deploy a second release first; see `mlapp releases --target lambda`.",
            )
        deployment.roll_back(str(number), releases[number].shipment)
        return self._find_release(str(number))

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        """Remove the function with its versions, alias, URL and triggers. The images stay in ECR."""
        return self._open_deployment(progress).remove_function()

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        function = self._function
        return read_log_group(
            function.session,
            f"/aws/lambda/{function.name}",
            follow=follow,
            tail=tail,
            since=since,
            name_replica=lambda stream: stream.rpartition("]")[2][:12],
        )

    def predict(self, inputs: Any) -> dict[str, Any]:
        """The live version's response."""
        self._open_deployment(ignore_progress).require_alias()
        return request_function_prediction(
            self._function, RequestBody.of(inputs), LIVE, find_accepted_api_key(self.serve)
        )

    def iam(self) -> dict[str, Any]:
        """A CloudFormation template with the function's minimal role and the deployer's permissions."""
        return make_function_iam_template(self.function_name, self.repository_name, self.settings)

    def _open_deployment(self, progress: Reporter) -> Deployment:
        return Deployment(self.app, self._function, self.serve, progress)

    def _require_role(self) -> None:
        if not self.settings.role:
            raise DeployError(
                "targets.lambda.role is not set: the function needs a role.",
                "Set it to the ARN of a role in mlapp.yaml; `mlapp eject iam` prints a template of the minimal role.",
            )

    def _require_triggers(self) -> None:
        refuse_contradictory_triggers(self.settings)
        TriggerSet(self._function.session, self.function_name).require_trigger_sources(self.settings)

    def _find_release(self, version: str) -> Release:
        match = next((release for release in self.releases() if str(release.number) == version), None)
        if match is None:
            raise DeployError(
                f"mlapp did not publish version {version} of {self.function_name}, to which the alias {LIVE} points.",
                "See `mlapp releases --target lambda`, and deploy again.",
            )
        return match
