"""Deploys releases and canaries of a function. A version that does not answer never gets a request.

Lambda has no lock. A changed revision of the function or alias shows a concurrent change; then nothing is written.
"""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import Triggers
from mlapp.config import Serve
from mlapp.deploy.aws_lambda.documents import LIVE, NO_TRIGGERS, make_function_record
from mlapp.deploy.aws_lambda.function import Function, read_alias_weights, read_version_record
from mlapp.deploy.aws_lambda.invocation import request_function_prediction, start_function_version
from mlapp.deploy.aws_lambda.triggers import TriggerSet
from mlapp.deploy.local_user import read_local_user
from mlapp.deploy.target import DeployError, Shipment
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody

Alias = dict[str, Any]


class Deployment:
    """One change of a function."""

    def __init__(self, app: str, function: Function, serve: Serve, progress: Reporter) -> None:
        self._app = app
        self._function = function
        self._serve = serve
        self._progress = progress

    def ship_release(self, shipment: Shipment) -> str:
        """Publish a shipment as a version, and make it live if it answers; returns the version.

        Raises:
            DeployError: there is a canary, or the version does not answer and was removed.
        """
        function = self._function
        alias = function.find_function_alias()
        old_triggers = self._read_version_triggers(LIVE) if alias else NO_TRIGGERS
        self._refuse_canary(alias)
        version = self._publish_lambda_version(shipment, alias)
        self._point_live_alias_to(version, alias)
        function.set_function_concurrency()
        function.set_function_url()
        self._set_live_triggers(version, old_triggers)
        return version

    def start_canary(self, shipment: Shipment, percent: int) -> str:
        """Publish a shipment as a version that gets `percent` of the requests; returns the version.

        Raises:
            DeployError: nothing is live, there is a canary, or the version does not answer and was removed.
        """
        alias = self.require_settled_alias()
        version = self._publish_lambda_version(shipment, alias)
        if version == alias["FunctionVersion"]:
            raise DeployError(
                f"Release {version} is live already, and there is nothing to change.",
                "Train or change something first, or deploy without --canary.",
            )
        self._function.point_alias(alias["FunctionVersion"], {version: percent / 100}, alias)
        self._progress(f"version {version} gets {percent} % of the requests")
        return version

    def promote_canary(self) -> str:
        """Send all requests to the canary; returns its version."""
        alias, version = self.require_canary()
        old_triggers = self._read_version_triggers(alias["FunctionVersion"])
        self._point_live_alias_to(version, alias)
        self._set_live_triggers(version, old_triggers)
        return version

    def abort_canary(self) -> str:
        """Send all requests to the live version; returns the canary's."""
        alias, version = self.require_canary()
        self._function.point_alias(alias["FunctionVersion"], {}, alias)
        self._progress(f"version {version} no longer gets requests")
        return version

    def roll_back(self, version: str, shipment: Shipment) -> None:
        """Make an earlier version live again, if it answers."""
        alias = self.require_settled_alias()
        self._test_lambda_version(version, shipment)
        old_triggers = self._read_version_triggers(alias["FunctionVersion"])
        self._point_live_alias_to(version, alias)
        self._set_live_triggers(version, old_triggers)

    def remove_function(self) -> list[str]:
        """Remove the function and its triggers; returns what was removed."""
        if self._function.find_function_configuration() is None:
            return []
        alias = self._function.find_function_alias()
        removed = []
        if alias is not None:
            triggers = TriggerSet(self._function.session, self._function.name)
            removed = triggers.remove_triggers(self._read_version_triggers(LIVE), alias["AliasArn"], self._progress)
        self._progress(f"remove the function {self._function.name}")
        self._function.delete()
        return [*removed, f"function {self._function.name}"]

    def require_alias(self) -> Alias:
        """The alias `live`.

        Raises:
            DeployError: nothing is live.
        """
        alias = self._function.find_function_alias()
        if alias is None:
            raise DeployError(
                f"{self._app} has no live release on Lambda.", "Deploy it first: mlapp deploy --target lambda."
            )
        return alias

    def require_settled_alias(self) -> Alias:
        """The alias `live`, which sends all requests to one version.

        Raises:
            DeployError: nothing is live, or there is a canary.
        """
        alias = self.require_alias()
        self._refuse_canary(alias)
        return alias

    def require_canary(self) -> tuple[Alias, str]:
        """The alias `live`, and the version of the canary.

        Raises:
            DeployError: there is no canary.
        """
        alias = self.require_alias()
        weights = read_alias_weights(alias)
        if not weights:
            raise DeployError("There is no canary.", "Start one: `mlapp deploy --target lambda --canary 10`.")
        return alias, next(iter(weights))

    def _refuse_canary(self, alias: Alias | None) -> None:
        weights = read_alias_weights(alias) if alias else {}
        if weights:
            raise DeployError(
                f"Release {next(iter(weights))} is a canary.", "Finish it first: mlapp promote, or mlapp abort."
            )

    def _publish_lambda_version(self, shipment: Shipment, alias: Alias | None) -> str:
        """Publish a version and test it. If it does not answer, it is removed and the live version stays."""
        function = self._function
        is_new = function.find_function_configuration() is None
        existing = {version["Version"] for version in function.list_versions()}
        self._progress(f"publish {shipment.image}")
        version = function.publish(make_function_record(shipment, read_local_user(), function.settings.triggers))
        try:
            self._test_lambda_version(version, shipment)
        except DeployError as error:
            if is_new:
                function.delete()
                raise DeployError(f"{error.what} The function was removed again.", error.todo) from error
            if version not in existing:
                function.delete_version(version)
            live = f"release {alias['FunctionVersion']} is still live" if alias else "nothing is live"
            raise DeployError(
                f"{error.what.rstrip('.')}. Release {version} was removed: {live}.", error.todo
            ) from error
        return version

    def _test_lambda_version(self, version: str, shipment: Shipment) -> None:
        """Make a real prediction. For an app without an example, only check that the model loads."""
        self._progress(f"ask version {version} for a prediction")
        if shipment.example is None:
            start_function_version(self._function, version)
            return
        request_function_prediction(
            self._function, RequestBody.of(list(shipment.example)), version, find_accepted_api_key(self._serve)
        )

    def _point_live_alias_to(self, version: str, alias: Alias | None) -> None:
        self._function.point_alias(version, {}, alias)
        self._progress(f"{self._function.name}:{LIVE} is version {version}")

    def _read_version_triggers(self, qualifier: str) -> Triggers:
        """The triggers of a deployed version."""
        configuration = self._function.find_function_configuration(qualifier)
        record = read_version_record(configuration) if configuration else None
        return record.triggers if record else NO_TRIGGERS

    def _set_live_triggers(self, version: str, old_triggers: Triggers) -> None:
        """Create the live version's triggers.

        Raises:
            DeployError: AWS refuses; the message states that the version is live nevertheless.
        """
        triggers = TriggerSet(self._function.session, self._function.name)
        try:
            triggers.set_triggers(
                self._read_version_triggers(version), old_triggers, self.require_alias()["AliasArn"], self._progress
            )
        except DeployError as error:
            raise DeployError(
                f"Release {version} is live, but not all of its triggers are set: {error.what}",
                f"{error.todo} Then deploy again.",
            ) from error


def find_accepted_api_key(serve: Serve) -> str | None:
    """An API key that the server accepts; None if it requires none."""
    return serve.api_keys[0] if serve.api_keys else None
