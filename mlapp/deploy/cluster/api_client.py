"""A Kubernetes API client: plain documents in and out, server-side apply, readable errors.

The client library provides the connection and the login. Its generated methods are not used, because each covers one
kind only, and mlapp handles all kinds as plain data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.connection import Connection
from mlapp.deploy.cluster.object_kinds import NAMESPACE, OPERATORS, POD, Kind, find_object_kind, object_title
from mlapp.deploy.cluster.transport import ApiCall, ApiRequest, Transport, read_transport_lines

MANAGER = "mlapp"
"""mlapp's field manager."""

MIN_SERVER_VERSION = (1, 30)
"""The minimum version of the server: rendered pods use the preStop `sleep` action."""

REMOVAL_TIMEOUT = 30.0
"""Seconds to wait for the removal of an object with finalizers."""

APPLY_MEDIA_TYPE = "application/apply-patch+yaml"
MERGE_MEDIA_TYPE = "application/merge-patch+json"


@dataclass(frozen=True)
class Watch:
    """An open watch: pairs of ADDED, MODIFIED, DELETED and the object."""

    _response: Any

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in read_transport_lines(self._response):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            yield event["type"], event["object"]

    def stop(self) -> None:
        """End the iteration, which may wait in another thread."""
        with suppress(OSError, RuntimeError, ValueError):  # the watch has ended
            self._response.shutdown()


class Cluster:
    """One namespace of one cluster."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport = Transport(connection)
        self._version: tuple[int, int] | None = None
        self._available_kinds: set[Kind] = set()

    @property
    def calls(self) -> list[ApiCall]:
        """The calls so far."""
        return self.transport.calls

    @property
    def warnings(self) -> list[str]:
        """Warnings of the server, without duplicates."""
        return self.transport.warnings

    @property
    def namespace(self) -> str:
        """The namespace in use."""
        return self.connection.namespace

    @property
    def place(self) -> str:
        """`context kind, namespace team-a`."""
        return self.connection.place

    def read_server_time(self) -> datetime:
        """The time by the server's clock, which is the same for everyone who deploys."""
        return datetime.now(timezone.utc) + self.transport.clock_offset

    def read_server_version(self) -> tuple[int, int]:
        """The server's version. Requests it once.

        Raises:
            ApiError: it is too old for the objects that mlapp renders.
        """
        if self._version:
            return self._version
        response = self.transport.send_json(ApiRequest("GET", "/version", "get", "the version"))
        digits = [int("".join(filter(str.isdigit, response.get(part, "0"))) or 0) for part in ("major", "minor")]
        if tuple(digits) < MIN_SERVER_VERSION:
            version_text, minimum = ".".join(map(str, digits)), ".".join(map(str, MIN_SERVER_VERSION))
            raise ApiError(
                f"The cluster ({self.connection.context}) is version {version_text}; mlapp needs {minimum} or later.",
                "Ask its operator to upgrade it; until then, adapt the files of `mlapp eject k8s` by hand.",
                0,
            )
        self._version = (digits[0], digits[1])
        return self._version

    def read_user_name(self) -> str:
        """The user name that the server authenticates us as."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        response = self.transport.send_json(ApiRequest("POST", path, "create", "SelfSubjectReview", body=body))
        return str(response.get("status", {}).get("userInfo", {}).get("username", "unknown"))

    def require_namespace(self) -> None:
        """Check that the namespace exists, if we are allowed to read it.

        This distinguishes a missing namespace from an app that is not deployed.

        Raises:
            ApiError: the namespace does not exist.
        """
        try:
            namespace = self.get_object(NAMESPACE, self.namespace)
        except ApiError:
            return
        if namespace is None:
            raise ApiError(
                f"There is no namespace '{self.namespace}' in {self.connection.context}.",
                "Choose another with --namespace, or let mlapp create it: "
                f"{self.connection.section}.namespace: {{name: {self.namespace}, create: true}}.",
                404,
            )

    def require_kind(self, kind: Kind, todo: str) -> None:
        """Check that the server has an operator's kind in the rendered API version. Requests it once.

        Raises:
            ApiError: the operator is not installed, or too old.
        """
        if kind in self._available_kinds:
            return
        group, _, version = kind.api_version.partition("/")
        try:
            group_info = self.transport.send_json(ApiRequest("GET", f"/apis/{group}", "get", kind.kind))
        except ApiError as error:
            if error.code == 403:  # the later write reports the missing permission
                return
            if error.code != 404:
                raise
            raise ApiError(
                f"The cluster ({self.connection.context}) does not know {kind.kind}: "
                f"{_name_kind_provider(kind)} is not installed.",
                todo,
                404,
            ) from None
        served_versions = [entry.get("version") for entry in group_info.get("versions") or []]
        if version not in served_versions:
            raise ApiError(
                f"{_name_kind_provider(kind)} in {self.connection.context} is too old: it serves "
                f"{', '.join(map(str, served_versions)) or 'nothing'} of {group}, not {version}.",
                todo,
                404,
            )
        self._available_kinds.add(kind)

    def get_object(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """The object, or None."""
        try:
            return self.transport.send_json(
                ApiRequest("GET", self._make_api_path(kind, name), "get", f"{kind.kind}/{name}")
            )
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list_with_version(self, kind: Kind, **query: str) -> tuple[list[dict[str, Any]], str]:
        """The current objects, and the resource version to start a watch from."""
        response = self.transport.send_json(ApiRequest("GET", self._make_api_path(kind), "list", kind.plural, query))
        return response.get("items", []), str(response["metadata"]["resourceVersion"])

    def list_objects(self, kind: Kind, selector: str = "", **query: str) -> list[dict[str, Any]]:
        """Objects of a kind that match `selector`; none if the cluster does not have the kind."""
        if selector:
            query["labelSelector"] = selector
        try:
            response = self.transport.send_json(
                ApiRequest("GET", self._make_api_path(kind), "list", kind.plural, query)
            )
        except ApiError as error:
            if error.code == 404 and not kind.core:
                return []
            raise
        items: list[dict[str, Any]] = response.get("items", [])
        for item in items:
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        return items

    def apply_object(
        self, document: Mapping[str, Any], *, dry_run: bool = False, force: bool = False, manager: str = MANAGER
    ) -> dict[str, Any]:
        """Server-side apply; returns the resulting object.

        Raises:
            ConflictError: other managers own some of its fields, and `force` is False.
        """
        kind, title = find_object_kind(dict(document)), object_title(dict(document))
        query = {"fieldManager": manager, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        path = self._make_api_path(kind, document["metadata"]["name"])
        body = self._place_in_namespace(kind, document)
        return self.transport.send_json(ApiRequest("PATCH", path, "patch", title, query, body, APPLY_MEDIA_TYPE))

    def create_object(self, document: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object; ApiError 409 if it exists."""
        kind, title = find_object_kind(dict(document)), object_title(dict(document))
        path = self._make_api_path(kind)
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        body = self._place_in_namespace(kind, document)
        request = ApiRequest("POST", path, "create", title, query, body, is_idempotent=False)
        return self.transport.send_json(request)

    def replace_object(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write an object back; ApiError 409 if it has changed since it was read."""
        kind, title = find_object_kind(dict(document)), object_title(dict(document))
        path = self._make_api_path(kind, document["metadata"]["name"])
        query = {"fieldManager": MANAGER}
        request = ApiRequest("PUT", path, "update", title, query, document, is_idempotent=False)
        return self.transport.send_json(request)

    def patch_object(self, kind: Kind, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """A JSON merge patch."""
        path = self._make_api_path(kind, name)
        query = {"fieldManager": MANAGER}
        return self.transport.send_json(
            ApiRequest("PATCH", path, "patch", f"{kind.kind}/{name}", query, change, MERGE_MEDIA_TYPE)
        )

    def delete_object(self, document: Mapping[str, Any]) -> bool:
        """Remove exactly this object, not a later one with its name; False if it no longer exists."""
        kind, title = find_object_kind(dict(document)), object_title(dict(document))
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid := document["metadata"].get("uid"):
            body["preconditions"] = {"uid": uid}
        path = self._make_api_path(kind, document["metadata"]["name"])
        try:
            response = self.transport.send_json(ApiRequest("DELETE", path, "delete", title, body=body))
        except ApiError as error:
            if error.code in (404, 409):
                return False
            raise
        if (response.get("metadata") or {}).get("finalizers"):
            self._wait_until_removed(kind, response["metadata"])
        return True

    def _wait_until_removed(self, kind: Kind, metadata: Mapping[str, Any]) -> None:
        """Wait for the controller behind an object's finalizer, so that a new object can have the same name."""
        end = time.monotonic() + REMOVAL_TIMEOUT
        while time.monotonic() < end:
            current = self.get_object(kind, metadata["name"])
            if current is None or current["metadata"].get("uid") != metadata.get("uid"):
                return
            time.sleep(0.1)

    @contextmanager
    def watch_objects(self, kind: Kind, version: str, timeout: float, **query: str) -> Iterator[Watch]:
        """Each change since `version`."""
        seconds = str(max(1, int(timeout)))
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": seconds, **query}
        path = self._make_api_path(kind)
        response = self.transport.send_call(ApiRequest("GET", path, "watch", kind.plural, query, stream=timeout + 5))
        try:
            yield Watch(response)
        finally:
            response.close()

    def read_pod_log(self, pod: str, **query: str) -> Any:
        """The log of a pod's server, as a response to read line by line."""
        path = f"{self._make_api_path(POD, pod)}/log"
        timeout = None if "follow" in query else 30.0
        return self.transport.send_call(
            ApiRequest("GET", path, "get", f"pods/log of {pod}", query, stream=timeout or 86400.0)
        )

    def _make_api_path(self, kind: Kind, name: str | None = None) -> str:
        return kind.api_path(self.namespace, name)

    def _place_in_namespace(self, kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
        if not kind.namespaced:
            return dict(document)
        return {**document, "metadata": {**document["metadata"], "namespace": self.namespace}}


def _name_kind_provider(kind: Kind) -> str:
    """The operator that provides a kind, for messages."""
    return "Knative Serving" if kind.group == "serving.knative.dev" else OPERATORS.get(kind.kind, kind.group)
