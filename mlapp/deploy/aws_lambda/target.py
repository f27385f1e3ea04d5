"""LambdaTarget: run an app's image as a function on AWS Lambda.

| mlapp | Lambda |
|---|---|
| release | a published version; both have the same number |
| the live release | the version of the alias `live` |
| canary | a weight of the alias |
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, ClassVar

import msgspec

from mlapp.aws_lambda.settings import LambdaSettings, Triggers
from mlapp.deploy.aws.canary_metrics import Limits, compare_versions, watch_canary
from mlapp.deploy.aws.ecr import default_repository_name, open_repository
from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.aws_lambda.documents import (
    NO_TRIGGERS,
    RECORD,
    ReleaseRecord,
    make_configuration,
    make_record,
    make_template,
)
from mlapp.deploy.aws_lambda.function import Function, read_record, read_weights
from mlapp.deploy.aws_lambda.iam import make_iam_template
from mlapp.deploy.aws_lambda.trigger_documents import refuse_contradictions
from mlapp.deploy.aws_lambda.triggers import TriggerSet
from mlapp.deploy.target import (
    CompareQuality,
    DeployError,
    LogLine,
    RegistryPlace,
    Release,
    Shipment,
    State,
    Status,
    Target,
    ignore_progress,
)
from mlapp.deploy.yaml_dump import to_yaml_all
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
PAUSE = 15.0
"""Polling interval in seconds for a canary's metrics, which have one data point per minute."""
FOLLOW_PAUSE = 2.0
LIMITS = Limits(calls=20, error_rate=0.02, latency_ratio=2.0)


class LambdaTarget(Target[LambdaSettings]):
    """A function, and its alias `live`."""

    name: ClassVar[str] = "lambda"
    settings_type = LambdaSettings

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
        return self.settings.repository or default_repository_name(self.app)

    @property
    def platforms(self) -> Sequence[str]:
        return (PLATFORMS[self.settings.architecture],)

    def check(self) -> str:
        session = self._function.session
        self._require_role()
        self._require_triggers()
        return f"AWS account {session.account}, region {session.region}"

    def open_registry(self, progress: Reporter = ignore_progress) -> RegistryPlace:
        return open_repository(self._function.session, self.repository_name, self.settings.tags, progress)

    def render(self, shipment: Shipment) -> list[dict[str, Any]]:
        """A CloudFormation template of the deployment."""
        return [make_template(self.function_name, self.settings, make_record(shipment, None, self.settings.triggers))]

    def render_canary(self, shipment: Shipment, percent: int) -> list[dict[str, Any]]:
        """The template with the alias's weights. Reads the live version from AWS."""
        alias = self._require_alias()
        record = make_record(shipment, None, self.settings.triggers)
        return [make_template(self.function_name, self.settings, record, (alias["FunctionVersion"], percent))]

    def diff(self, shipment: Shipment, *, take_over: bool = False) -> str:
        function = self._function
        live = function.find_configuration("live") if function.find_alias() else None
        planned = make_record(shipment, None, self.settings.triggers)
        wanted = self._describe_configuration(make_configuration(self.settings, planned), planned)
        running = {} if live is None else self._describe_configuration(live, read_record(live))
        before, after = (to_yaml_all([found]) if found else "" for found in (running, wanted))
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"{self.function_name} as it runs",
            f"{self.function_name} as it would",
        )
        return "".join(lines)

    def apply(self, shipment: Shipment, *, progress: Reporter = ignore_progress, take_over: bool = False) -> Release:
        function = self._function
        self._require_role()
        self._require_triggers()
        alias = function.find_alias()
        before = self._read_triggers("live") if alias else NO_TRIGGERS
        self._refuse_canary(alias)
        is_new = function.find_configuration() is None
        version = self._publish_release(shipment, alias, is_new, progress)
        function.point_alias(version, {}, alias)
        progress(f"{self.function_name}:live is version {version}")
        function.set_concurrency()
        function.set_url()
        self._set_triggers(version, before, progress)
        return self._find_release(version)

    def canary(
        self, shipment: Shipment, percent: int, *, progress: Reporter = ignore_progress, take_over: bool = False
    ) -> Release:
        alias = self._require_alias()
        self._refuse_canary(alias)
        version = self._publish_release(shipment, alias, False, progress)
        if version == alias["FunctionVersion"]:
            raise DeployError(
                f"Release {version} is live already, and there is nothing to change.",
                "Train or change something first, or deploy without --canary.",
            )
        self._function.point_alias(alias["FunctionVersion"], {version: percent / 100}, alias)
        progress(f"version {version} gets {percent} % of the requests")
        return self._find_release(version)

    def judge(
        self, seconds: float, *, progress: Reporter = ignore_progress, compare_quality: CompareQuality | None = None
    ) -> Release:
        """Watch the canary's CloudWatch metrics, which arrive some minutes late; then promote or abort it."""
        alias, version = self._require_canary()
        live, start, function = alias["FunctionVersion"], datetime.now(timezone.utc), self._function
        reason = watch_canary(
            lambda: function.count_calls(version, start),
            lambda: function.count_calls(live, start),
            seconds,
            LIMITS,
            PAUSE,
            progress,
            lambda: compare_versions(compare_quality, self._find_release(live), self._find_release(version)),
        )
        if reason is None:
            return self.promote(progress=progress)
        self.abort(progress=progress)
        raise DeployError(
            f"The canary, release {version}, was aborted: {reason}. Release {live} serves all requests.",
            "See `mlapp logs --target lambda`.",
        )

    def promote(self, *, progress: Reporter = ignore_progress) -> Release:
        alias, version = self._require_canary()
        before = self._read_triggers(alias["FunctionVersion"])
        self._function.point_alias(version, {}, alias)
        progress(f"{self.function_name}:live is version {version}")
        self._set_triggers(version, before, progress)
        return self._find_release(version)

    def abort(self, *, progress: Reporter = ignore_progress) -> Release:
        alias, version = self._require_canary()
        release = self._find_release(version)
        self._function.point_alias(alias["FunctionVersion"], {}, alias)
        progress(f"version {version} no longer gets requests")
        return _with_state(release, "aborted")

    def status(self) -> Status:
        function = self._function
        alias = function.find_alias()
        place = f"AWS account {function.session.account}, region {function.session.region}"
        if alias is None:
            return Status(self.app, self.name, None, place=place)
        found = {str(release.number): release for release in self.releases()}
        weights, live = read_weights(alias), str(alias["FunctionVersion"])
        configuration = function.find_configuration("live") or {}
        state = str(configuration.get("State") or "Active")
        problems = [] if state in ("Active", "Inactive") else [f"{state}: {configuration.get('StateReason', '')}"]
        if live not in found:
            problems.append(f"The alias live means version {live}, which mlapp did not publish.")
        traffic = {int(version): round(weight * 100) for version, weight in weights.items()}
        if live.isdigit():
            traffic[int(live)] = 100 - sum(traffic.values())
        return Status(
            app=self.app,
            target=self.name,
            release=found.get(live),
            canary=next((found[version] for version in weights if version in found), None),
            desired=1,
            ready=0 if problems else 1,
            traffic=traffic,
            url=function.find_url(),
            scaling="an instance for each request at a time"
            + ("" if self.settings.concurrency is None else f", at most {self.settings.concurrency}"),
            problems=tuple(problems),
            place=place,
        )

    def releases(self) -> list[Release]:
        alias = self._function.find_alias()
        url = self._function.find_url() if alias else None
        live = str(alias["FunctionVersion"]) if alias else None
        weights = read_weights(alias) if alias else {}
        found = []
        for version in self._function.list_versions():
            number = version["Version"]
            record = read_record(version)
            if record is None:
                continue
            state: State = "live" if number == live else "canary" if number in weights else "superseded"
            created = datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", version["LastModified"]))
            shipment = record.make_shipment(self.app)
            found.append(
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
        return found

    def rollback(self, to: int | None = None, *, progress: Reporter = ignore_progress) -> Release:
        """Point `live` at an earlier version, which keeps its number."""
        alias = self._require_alias()
        self._refuse_canary(alias)
        live = int(alias["FunctionVersion"])
        known = {release.number: release for release in self.releases()}
        before = [number for number in known if number < live]
        wanted = to if to is not None else max(before, default=None)
        if wanted is None or wanted not in known:
            listed = ", ".join(map(str, known)) or "none"
            raise DeployError(
                f"There is no release {to} of {self.app} to go back to." if to else "There is no earlier release.",
                f"Kept: {listed}. See `mlapp releases --target lambda`.",
            )
        progress(f"ask version {wanted} for a prediction")
        self._try_version(str(wanted), known[wanted].shipment)
        triggers = self._read_triggers(str(live))
        self._function.point_alias(str(wanted), {}, alias)
        progress(f"{self.function_name}:live is version {wanted}")
        self._set_triggers(str(wanted), triggers, progress)
        return self._find_release(str(wanted))

    def delete(self, *, progress: Reporter = ignore_progress) -> list[str]:
        if self._function.find_configuration() is None:
            return []
        alias = self._function.find_alias()
        removed = []
        if alias is not None:
            removed = self._triggers.remove_triggers(self._read_triggers("live"), alias["AliasArn"], progress)
        progress(f"remove the function {self.function_name}")
        self._function.delete()
        return [*removed, f"function {self.function_name}"]

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float | None = None) -> Iterator[LogLine]:
        seen: set[str] = set()
        start = time.time() - since if since is not None else None
        lines = [_make_line(event) for event in self._function.read_log(start, seen)]
        yield from lines[-tail:] if tail else lines if tail is None else []
        while follow:
            time.sleep(FOLLOW_PAUSE)
            start = max(start or 0.0, time.time() - 60)
            yield from map(_make_line, self._function.read_log(start, seen))

    def predict(self, inputs: Any) -> dict[str, Any]:
        self._require_alias()
        return self._function.ask(RequestBody.of(inputs), "live", self._api_key)

    def iam(self) -> dict[str, Any]:
        """A CloudFormation template with the function's minimal role and the deployer's permissions."""
        return make_iam_template(self.function_name, self.repository_name, self.settings)

    @property
    def _api_key(self) -> str | None:
        return self.serve.api_keys[0] if self.serve.api_keys else None

    def _publish_release(
        self, shipment: Shipment, alias: dict[str, Any] | None, is_new: bool, progress: Reporter
    ) -> str:
        """Publish a version and test it. If it does not answer, it is removed and the live version stays."""
        function = self._function
        known = {version["Version"] for version in function.list_versions()}
        progress(f"publish {shipment.image}")
        version = function.publish(make_record(shipment, self._describe_caller(), self.settings.triggers))
        try:
            progress(f"ask version {version} for a prediction")
            self._try_version(version, shipment)
        except DeployError as error:
            if is_new:
                function.delete()
                raise DeployError(f"{error.what} The function was removed again.", error.todo) from error
            if version not in known:
                function.delete_version(version)
            live = f"release {alias['FunctionVersion']} is still live" if alias else "nothing is live"
            raise DeployError(
                f"{error.what.rstrip('.')}. Release {version} was withdrawn: {live}.", error.todo
            ) from error
        return version

    def _try_version(self, version: str, shipment: Shipment) -> None:
        """Make a real prediction. For an app without an example, only check that the model loads."""
        if shipment.example is None:
            self._function.wake(version)
            return
        self._function.ask(RequestBody.of(list(shipment.example)), version, self._api_key)

    def _describe_caller(self) -> str | None:
        import getpass

        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return None

    def _require_role(self) -> None:
        if not self.settings.role:
            raise DeployError(
                "targets.lambda.role is not set: the function needs a role.",
                "Set it to the ARN of a role in mlapp.yaml; `mlapp eject iam` prints the least one.",
            )

    @cached_property
    def _triggers(self) -> TriggerSet:
        return TriggerSet(self._function.session, self.function_name)

    def _require_triggers(self) -> None:
        refuse_contradictions(self.settings)
        self._triggers.require_sources(self.settings)

    def _read_triggers(self, qualifier: str) -> Triggers:
        """The triggers of a deployed version."""
        found = self._function.find_configuration(qualifier)
        record = read_record(found) if found else None
        return record.triggers if record else NO_TRIGGERS

    def _set_triggers(self, version: str, before: Triggers, progress: Reporter) -> None:
        """Create the live version's triggers.

        Raises:
            DeployError: AWS refuses; the message states that the version is live nevertheless.
        """
        alias = self._require_alias()
        try:
            self._triggers.set_triggers(self._read_triggers(version), before, alias["AliasArn"], progress)
        except DeployError as error:
            raise DeployError(
                f"Release {version} is live, but not all of its triggers are set: {error.what}",
                f"{error.todo} Then deploy again.",
            ) from error

    def _require_alias(self) -> dict[str, Any]:
        alias = self._function.find_alias()
        if alias is None:
            raise DeployError(
                f"{self.app} has no live release on Lambda.", "Deploy it first: mlapp deploy --target lambda."
            )
        return alias

    def _require_canary(self) -> tuple[dict[str, Any], str]:
        alias = self._require_alias()
        weights = read_weights(alias)
        if not weights:
            raise DeployError("There is no canary.", "Start one: `mlapp deploy --target lambda --canary 10`.")
        return alias, next(iter(weights))

    def _refuse_canary(self, alias: dict[str, Any] | None) -> None:
        weights = read_weights(alias) if alias else {}
        if weights:
            raise DeployError(
                f"Release {next(iter(weights))} is a canary.", "Finish it first: mlapp promote, or mlapp abort."
            )

    def _find_release(self, version: str) -> Release:
        return next(release for release in self.releases() if str(release.number) == version)

    def _describe_configuration(self, configuration: dict[str, Any], record: ReleaseRecord | None) -> dict[str, Any]:
        """The part of a configuration that a deploy sets, in the same form for current and planned ones."""
        keys = ("Role", "MemorySize", "Timeout", "EphemeralStorage", "Description")
        variables = dict(configuration.get("Environment", {}).get("Variables", {}))
        variables.pop(RECORD, None)
        config = (
            configuration.get("ImageConfig") or configuration.get("ImageConfigResponse", {}).get("ImageConfig") or {}
        )
        vpc = configuration.get("VpcConfig") or {}
        return {
            "FunctionName": self.function_name,
            "ImageUri": record.image if record else None,
            **{key: configuration[key] for key in keys if key in configuration},
            "EntryPoint": config.get("EntryPoint", []),
            "Environment": variables,
            "SubnetIds": vpc.get("SubnetIds", []),
            "SecurityGroupIds": vpc.get("SecurityGroupIds", []),
            "Triggers": msgspec.to_builtins(record.triggers if record else NO_TRIGGERS),
        }


def _with_state(release: Release, state: State) -> Release:
    from dataclasses import replace

    return replace(release, state=state)


def _make_line(event: dict[str, Any]) -> LogLine:
    moment = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
    replica = str(event.get("logStreamName", "")).rpartition("]")[2][:12]
    return LogLine(replica, str(event["message"]).rstrip("\n"), moment)
