"""A small Kubernetes API server for tests: real HTTP, server-side apply with managed fields, watches, dry runs.

It stands in for what a unit test cannot start. Its Deployment controller makes pods that are ready at once, unless the
test has said otherwise (`trouble`). It refuses what `server_rules` names. As with a real server, the objects of a list
have no kind, the controller acts after the answer to a write, and pods take time to end. tests/cluster runs the same
deploys against a real server.
"""

from __future__ import annotations

import copy
import itertools
import json
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import managed_fields
import server_rules
from managed_fields import Managers

ONE = "registry.example/digits@sha256:" + "1" * 64
TWO = "registry.example/digits@sha256:" + "2" * 64

APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
Key = tuple[str, str, str]  # plural, namespace, name
DEFAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "deployments": lambda item: item["spec"].setdefault("replicas", 1),
    "services": lambda item: item["spec"].setdefault("clusterIP", "10.0.0.1"),
}
KINDS = {
    "namespaces": "Namespace",
    "serviceaccounts": "ServiceAccount",
    "configmaps": "ConfigMap",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "services": "Service",
    "pods": "Pod",
    "events": "Event",
    "deployments": "Deployment",
    "cronjobs": "CronJob",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "networkpolicies": "NetworkPolicy",
    "ingresses": "Ingress",
    "leases": "Lease",
    "httproutes": "HTTPRoute",
    "servicemonitors": "ServiceMonitor",
}
GROUPS = {
    "httproutes": "gateway.networking.k8s.io",
    "servicemonitors": "monitoring.coreos.com",
    "externalsecrets": "external-secrets.io",
    "inferenceservices": "serving.kserve.io",
    "servingruntimes": "serving.kserve.io",
    "services.serving.knative.dev": "serving.knative.dev",
    "revisions": "serving.knative.dev",
    "models": "mlops.seldon.io",
    "servers": "mlops.seldon.io",
    "experiments": "mlops.seldon.io",
}
OPERATORS = set(GROUPS)
"""Kinds that are there only when their operator is: a test adds them to `operators`."""
Controller = Callable[["ApiDouble", "Key", dict[str, Any]], None]


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, code: int, reason: str, message: str, causes: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "code": code,
            "reason": reason,
            "message": message,
            "details": {"causes": causes or []},
        }


class ApiDouble:
    """The server and what it holds.

    `trouble` says what becomes of the pods of an image; `refuse` refuses calls; `expired` are kinds whose next watch
    starts from a version that the server no longer has. `settling`: seconds until its controllers act.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {
            ("namespaces", "", name): {"metadata": {"name": name}} for name in ("default", "team-a")
        }
        self.managers: dict[Key, Managers] = {}
        self.namespaces = {"default", "team-a"}
        self.operators: set[str] = set()
        self.version = ("1", "37")
        self.user = "ada"
        self.refuse: Callable[[str, str, dict[str, Any]], None] = lambda verb, plural, document: None
        self.away = 0
        self.finalizing = 0.02
        self.settling = 0.02
        self.expired: set[str] = set()
        self.ahead = 0
        self.controllers: dict[str, Controller] = {}
        self.validate: Callable[[str, dict[str, Any], dict[str, Any] | None], None] = lambda plural, item, live: None
        self.served = {"serving.kserve.io": ["v1alpha1", "v1beta1"], "mlops.seldon.io": ["v1alpha1"]}
        self.trouble: dict[str, str] = {}
        self.logs = "first line\nlast words\n"
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.metrics: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.asked: list[tuple[str, bytes]] = []
        self.watches: list[BaseHTTPRequestHandler] = []
        self._versions = itertools.count(1)
        self._is_closed = False
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._history: list[tuple[int, str, Key, dict[str, Any]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def seen(self) -> int:
        """The version of the latest change."""
        with self._lock:
            return self._history[-1][0] if self._history else 0

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._server.shutdown()
        self._server.server_close()

    # What a test does and asks directly, as a user of kubectl would.

    def get(self, plural: str, name: str, namespace: str = "team-a") -> dict[str, Any] | None:
        return self.objects.get((plural, "" if plural == "namespaces" else namespace, name))

    def names(self, plural: str, namespace: str = "team-a") -> list[str]:
        return sorted(name for kind, space, name in list(self.objects) if kind == plural and space == namespace)

    def edit(self, plural: str, name: str, manager: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change an object as another client."""
        with self._lock:
            item = copy.deepcopy(self.get(plural, name))
            assert item is not None
            change(item)
            self._write((plural, "team-a", name), item, manager)

    def add(self, plural: str, document: dict[str, Any], manager: str = "kubectl") -> None:
        """Create an object as another client."""
        with self._lock:
            document["metadata"].setdefault("namespace", "team-a")
            self._write((plural, "team-a", document["metadata"]["name"]), document, manager)

    def heal(self, image: str) -> None:
        """Let the pods of an image become ready."""
        with self._lock:
            del self.trouble[image]
            for key, item in list(self.objects.items()):
                if key[0] == "pods" and item["spec"]["containers"][0]["image"] == image:
                    self._note("DELETED", key, self.objects.pop(key))
            for key, item in list(self.objects.items()):
                if key[0] == "deployments":
                    self._roll(key, item)

    # What the HTTP handler calls.

    def read(self, key: Key) -> dict[str, Any]:
        if key not in self.objects:
            raise Refused(404, "NotFound", f'{key[0]} "{key[2]}" not found')
        return self.objects[key]

    def list(self, plural: str, namespace: str, query: dict[str, str]) -> list[dict[str, Any]]:
        if plural in OPERATORS and plural not in self.operators:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        with self._lock:
            return [
                item
                for (kind, space, _), item in self.objects.items()
                if kind == plural and space in (namespace, "") and _chosen(item, query)
            ]

    def apply(self, key: Key, document: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if key[0] in OPERATORS and key[0] not in self.operators:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        with self._lock:
            self._refuse_missing_namespace(key)
            live = self.objects.get(key)
            try:
                result, managers = managed_fields.apply(
                    _plain(live), self.managers.get(key, {}), document, query["fieldManager"], query["force"] == "true"
                )
            except managed_fields.Conflicted as error:
                causes = [
                    {
                        "reason": "FieldManagerConflict",
                        "message": f"conflict with {_name_manager(owner)}",
                        "field": field,
                    }
                    for field, owner in error.found
                ]
                raise Refused(409, "Conflict", f"Apply failed with {len(causes)} conflicts", causes) from None
            wanted = document["metadata"].get("resourceVersion")
            if live and wanted and wanted != live["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest")
            return self._store(key, result, managers, dry_run="dryRun" in query)

    def create(self, key: Key, document: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if key[0] in OPERATORS and key[0] not in self.operators:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        with self._lock:
            self._refuse_missing_namespace(key)
            if document["metadata"].get("resourceVersion"):
                raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
            if key in self.objects:
                raise Refused(409, "AlreadyExists", f'{key[0]} "{key[2]}" already exists')
            managers = managed_fields.update(None, {}, document, query.get("fieldManager", "unknown"))
            return self._store(key, document, managers, dry_run="dryRun" in query)

    def merge(self, key: Key, change: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        with self._lock:
            document = _merged(copy.deepcopy(self.read(key)), change)
            return self._write(key, document, query.get("fieldManager", "unknown"))

    def replace(self, key: Key, document: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        with self._lock:
            live = self.read(key)
            if document["metadata"].get("resourceVersion") != live["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest")
            return self._write(key, document, query.get("fieldManager", "unknown"))

    def delete(self, key: Key, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            item = self.read(key)
            uid = (body.get("preconditions") or {}).get("uid")
            if uid and uid != item["metadata"]["uid"]:
                raise Refused(409, "Conflict", "the UID in the precondition does not match")
            if item["metadata"].get("finalizers"):  # the controller takes its own off, and then it is gone
                item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._note("MODIFIED", key, item)
                uid = item["metadata"]["uid"]
                self._do_later(self.finalizing, lambda: self._finalize(key, uid))
                return item
            del self.objects[key]
            self.managers.pop(key, None)
            self._note("DELETED", key, item)
            if key[0] == "deployments":
                for pod in self._pods_of(item):
                    self._end_pod(("pods", key[1], pod["metadata"]["name"]))
            for other, below in list(self.objects.items()):
                owners = below["metadata"].get("ownerReferences") or []
                if other in self.objects and any(owner["uid"] == item["metadata"]["uid"] for owner in owners):
                    self.delete(other, {})
            return {"kind": "Status", "status": "Success"}

    def _finalize(self, key: Key, uid: str) -> None:
        item = self.objects.get(key)
        if item is not None and item["metadata"]["uid"] == uid:
            del item["metadata"]["finalizers"]
            self.delete(key, {})

    def _do_later(self, seconds: float, act: Callable[[], None]) -> None:
        def act_alone() -> None:
            with self._lock:
                if not self._is_closed:
                    act()

        timer = threading.Timer(seconds, act_alone)
        timer.daemon = True
        timer.start()

    def watch(
        self,
        plural: str,
        namespace: str,
        query: dict[str, str],
        send: Callable[[Any], None],
        has_client: Callable[[], bool],
    ) -> None:
        """What changes from a version on, until the timeout or until the client has gone."""
        seen = int(query["resourceVersion"])
        if plural in self.expired:  # its version is gone, as after a compaction of etcd
            self.expired.discard(plural)
            return send({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
        end = time.monotonic() + float(query.get("timeoutSeconds", "5"))
        while time.monotonic() < end and has_client():
            with self._changed:
                self._changed.wait_for(lambda: self._history and self._history[-1][0] > seen, timeout=0.2)
                news = [entry for entry in self._history if entry[0] > seen]
                seen = news[-1][0] if news else seen
            for _, action, key, item in news:
                if key[0] == plural and key[1] == namespace and _chosen(item, query):
                    send({"type": action, "object": item})

    def _refuse_missing_namespace(self, key: Key) -> None:
        if key[0] != "namespaces" and key[1] not in self.namespaces:
            raise Refused(404, "NotFound", f'namespaces "{key[1]}" not found')

    def _write(self, key: Key, document: dict[str, Any], manager: str) -> dict[str, Any]:
        managers = managed_fields.update(
            _plain(self.objects.get(key)), self.managers.get(key, {}), _plain(document), manager
        )
        return self._store(key, document, managers)

    def _store(self, key: Key, document: dict[str, Any], managers: Managers, dry_run: bool = False) -> dict[str, Any]:
        document, live = copy.deepcopy(document), self.objects.get(key)
        metadata, before = document["metadata"], (live or {}).get("metadata", {})
        if key[1]:
            metadata["namespace"] = key[1]
        metadata["uid"] = before.get("uid") or str(uuid.uuid4())
        metadata["creationTimestamp"] = before.get("creationTimestamp") or "2026-01-01T00:00:00Z"
        if key[0] in DEFAULTS:
            DEFAULTS[key[0]](document)
        if invalid := server_rules.find_invalid_fields(key[0], document, live):
            raise Refused(422, "Invalid", f'{KINDS.get(key[0], key[0])} "{key[2]}" is invalid: {"; ".join(invalid)}')
        changed = live is None or live.get("spec") != document.get("spec")
        metadata["generation"] = before.get("generation", 0) + int(changed)
        metadata["managedFields"] = [
            {"manager": manager, "operation": operation, "fieldsV1": managed_fields.to_fields_v1(paths)}
            for (manager, operation), paths in managers.items()
        ]
        if live and "status" in live:
            document["status"] = live["status"]
        self.validate(key[0], document, live)
        metadata["resourceVersion"] = before.get("resourceVersion", "0")
        if dry_run or document == live:  # a write that changes nothing is not stored
            return document
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[key], self.managers[key] = document, managers
        if key[0] == "namespaces":
            self.namespaces.add(key[2])
        self._note("MODIFIED" if live else "ADDED", key, document)
        answer = copy.deepcopy(document)
        if key[0] == "deployments" and changed:
            self._roll_later(key, metadata["generation"])
        if key[0] in self.controllers and changed:
            self.controllers[key[0]](self, key, document)
        return answer

    def set_status(self, key: Key, status: dict[str, Any]) -> None:
        """A controller reports."""
        with self._lock:
            self.objects[key]["status"] = status
            self._note("MODIFIED", key, self.objects[key])

    def make_for(self, owner: Key, plural: str, document: dict[str, Any]) -> None:
        """A controller makes or changes an object of its owner's."""
        with self._lock:
            item = self.objects[owner]
            reference = {"kind": item["kind"], "name": owner[2], "uid": item["metadata"]["uid"], "controller": True}
            document["metadata"] = {**document["metadata"], "ownerReferences": [reference]}
            self._write((plural, owner[1], document["metadata"]["name"]), document, "controller")

    def discover(self, group: str) -> dict[str, Any]:
        """The versions of an API group."""
        if not any(GROUPS[plural] == group for plural in self.operators):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return {"versions": [{"version": version} for version in self.served.get(group, ["v1"])]}

    def _note(self, action: str, key: Key, item: dict[str, Any]) -> None:
        with self._changed:
            self._history.append((next(self._versions), action, key, copy.deepcopy(item)))
            self._changed.notify_all()

    # The controllers, in their simplest form.

    def _pods_of(self, deployment: dict[str, Any]) -> list[dict[str, Any]]:
        chosen, space = deployment["spec"]["selector"]["matchLabels"], deployment["metadata"]["namespace"]
        return [
            item
            for (kind, namespace, _), item in self.objects.items()
            if kind == "pods"
            and namespace == space
            and "deletionTimestamp" not in item["metadata"]
            and chosen.items() <= item["metadata"]["labels"].items()
        ]

    def _roll_later(self, key: Key, generation: int) -> None:
        """Until then the status is that of the previous generation."""

        def roll() -> None:
            item = self.objects.get(key)
            if item is not None and item["metadata"]["generation"] == generation:
                self._roll(key, item)

        if self.settling:
            self._do_later(self.settling, roll)
        else:
            roll()

    def _end_pod(self, key: Key) -> None:
        """Its containers end within the grace period, and only then it is gone."""
        pod = self.objects[key]
        if "deletionTimestamp" in pod["metadata"]:
            return
        pod["metadata"] = {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self._note("MODIFIED", key, pod)

        def end() -> None:
            if self.objects.get(key) is pod:
                self._note("DELETED", key, self.objects.pop(key))

        self._do_later(self.settling, end)

    def _roll(self, key: Key, deployment: dict[str, Any]) -> None:
        """Replace the pods by those of the template; those of an image in trouble do not become ready."""
        spec, name = deployment["spec"], deployment["metadata"]["name"]
        template = spec["template"]
        image = template["spec"]["containers"][0]["image"]
        trouble = self.trouble.get(image)
        old = [pod for pod in self._pods_of(deployment) if not _is_of(pod, template)]
        same = [pod for pod in self._pods_of(deployment) if pod not in old]
        wanted = spec["replicas"]
        for pod in [] if trouble else [*old, *same[wanted:]]:
            self._end_pod(("pods", key[1], pod["metadata"]["name"]))
        for _ in range(1 if trouble else max(0, wanted - len(same))):
            self._make_pod(key[1], name, template, trouble)
        ready = 0 if trouble else wanted
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": ready if not trouble else len(old) + 1,
            "updatedReplicas": ready if not trouble else 1,
            "availableReplicas": ready if not trouble else len(old),
            "conditions": [],
        }
        if trouble == "quota":
            message = 'pods "x" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2'
            status["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": message}]
        deployment["status"] = status
        self._note("MODIFIED", key, deployment)

    def _make_pod(self, namespace: str, owner: str, template: dict[str, Any], trouble: str | None) -> None:
        if trouble == "quota":
            return
        name = f"{owner}-{uuid.uuid4().hex[:5]}"
        container: dict[str, Any] = {"name": "server", "restartCount": 0, "state": {"running": {}}, "image": ""}
        condition: dict[str, Any] = {"type": "Ready", "status": "False" if trouble else "True"}
        conditions = [condition]
        if trouble == "no image":
            message = "rpc error: manifest unknown: not found"
            container.update(state={"waiting": {"reason": "ImagePullBackOff", "message": message}}, image="r/x")
        elif trouble == "crash":
            ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
            container.update(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended, restartCount=2)
        elif trouble == "no secret":
            waiting = {"reason": "CreateContainerConfigError", "message": 'secret "digits" not found'}
            container.update(state={"waiting": waiting})
        elif trouble == "unschedulable":
            conditions.append({"type": "PodScheduled", "status": "False", "message": "0/1 nodes: Insufficient cpu."})
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": name, "uid": name},
            "spec": {**template["spec"], "nodeName": "node-1"},
            "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [container]},
        }
        self.objects[("pods", namespace, name)] = pod
        self._note("ADDED", ("pods", namespace, name), pod)
        if trouble == "probe":
            event = {
                "metadata": {"name": f"{name}.1"},
                "type": "Warning",
                "reason": "Unhealthy",
                "message": "Startup probe failed: HTTP probe failed with statuscode: 500",
                "involvedObject": {"kind": "Pod", "name": name},
            }
            self.objects[("events", namespace, f"{name}.1")] = event
            self._note("ADDED", ("events", namespace, f"{name}.1"), event)


def _is_of(pod: dict[str, Any], template: dict[str, Any]) -> bool:
    """Whether a pod was made from the template as it is now, with the same metadata."""
    return all(
        pod["metadata"].get(name, {}) == template["metadata"].get(name, {}) for name in ("labels", "annotations")
    )


def _name_manager(owner: tuple[str, str]) -> str:
    """A manager as the causes of a conflict name it: an Apply without a version, an Update with its time."""
    manager, operation = owner
    return f'"{manager}"' if operation == "Apply" else f'"{manager}" using apps/v1 at 2026-01-01T00:00:00Z'


def _as_listed(plural: str, item: dict[str, Any]) -> dict[str, Any]:
    """An object in a list: only those of a custom resource have a kind and a version."""
    return item if plural in OPERATORS else {key: item[key] for key in item if key not in ("kind", "apiVersion")}


def _plain(item: dict[str, Any] | None) -> dict[str, Any]:
    """What managers can own: without what the server counts."""
    if item is None:
        return {}
    server = ("uid", "creationTimestamp", "generation", "managedFields", "resourceVersion")
    metadata = {key: value for key, value in item["metadata"].items() if key not in server}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": metadata}


def _chosen(item: dict[str, Any], query: dict[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        if term.startswith("!"):
            if term[1:] in labels:
                return False
            continue
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        key, _, value = term.partition("=")
        found: Any = item
        for part in key.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else None
        if found != value:
            return False
    return True


def _merged(item: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    for key, value in change.items():
        if value is None:
            item.pop(key, None)
        elif isinstance(value, dict) and isinstance(item.get(key), dict):
            _merged(item[key], value)
        else:
            item[key] = value
    return item


def _handler(api: ApiDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((timestamp or time.time()) + api.ahead)

        def _serve(self) -> None:
            url = urlparse(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            media_type = self.headers.get("Content-Type") or ""
            if url.path.endswith("/predict"):
                api.asked.append((media_type, content))
            body = json.loads(content or b"null") if "/proxy/" not in url.path else None
            api.requests.append((self.command, url.path))
            if api.away:
                api.away -= 1
                self.close_connection = True
                self.connection.close()
                return
            try:
                if self.headers.get("Authorization") == "Bearer expired":
                    raise Refused(401, "Unauthorized", "Unauthorized")
                self._route(url.path, query, body)
            except Refused as refused:
                self._answer(refused.code, refused.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def _route(self, path: str, query: dict[str, str], body: Any) -> None:
            if path == "/version":
                return self._answer(200, {"major": api.version[0], "minor": api.version[1]})
            if path.endswith("/selfsubjectreviews"):
                return self._answer(201, {"status": {"userInfo": {"username": api.user}}})
            parts = path.strip("/").split("/")
            group = parts[1] if parts[0] == "apis" else ""
            if parts[0] == "apis" and len(parts) == 2:
                return self._answer(200, api.discover(group))
            parts = parts[2:] if parts[0] == "api" else parts[3:]
            namespace = ""
            if parts[0] == "namespaces" and len(parts) > 2:
                namespace, parts = parts[1], parts[2:]
            plural, name, *below = [*parts, ""][:2] + parts[2:]
            if below:
                return self._pod(name, below)
            if (plural, group) == ("services", "serving.knative.dev"):
                plural = "services.serving.knative.dev"
            self._refuse(plural, namespace, body, query)
            if self.command == "GET" and query.get("watch"):
                return self._watch(plural, namespace, query)
            if self.command == "GET" and not name:
                version = str(api.seen)
                items = [_as_listed(plural, item) for item in api.list(plural, namespace, query)]
                return self._answer(200, {"items": items, "metadata": {"resourceVersion": version}})
            key = (plural, namespace, name or ((body or {}).get("metadata") or {}).get("name", ""))
            if self.command == "GET":
                return self._answer(200, api.read(key))
            is_apply = self.headers["Content-Type"] == APPLY
            if self.command == "PATCH" and not is_apply and self.headers["Content-Type"] != MERGE:
                raise Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
            has_whole_object = self.command in ("POST", "PUT") or is_apply
            if has_whole_object and (wrong := server_rules.find_bad_request(body, name, namespace, is_apply=is_apply)):
                raise Refused(400, "BadRequest", wrong)
            if self.command == "POST":
                return self._answer(201, api.create(key, body, query))
            if self.command == "PUT":
                return self._answer(200, api.replace(key, body, query))
            if self.command == "DELETE":
                return self._answer(200, api.delete(key, body or {}))
            if not is_apply:
                return self._answer(200, api.merge(key, body, query))
            code = 200 if key in api.objects else 201
            return self._answer(code, api.apply(key, body, query))

        def _refuse(self, plural: str, namespace: str, body: Any, query: dict[str, str]) -> None:
            verbs = {"GET": "list", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
            verb = "watch" if query.get("watch") else verbs[self.command]
            api.refuse(verb, plural, {**(body or {}), "dryRun": "dryRun" in query})

        def _pod(self, name: str, below: list[str]) -> None:
            if below[0] == "log":
                return self._answer(200, api.logs.encode())
            if below[0] == "portforward":
                raise Refused(403, "Forbidden", "no port-forward here")
            pod = name.partition(":")[0]
            if below[1:] == ["metrics"]:
                return self._answer(200, api.metrics.get(pod.rpartition("-")[0], "").encode())
            pod_object = next(item for key, item in api.objects.items() if key[0] == "pods" and key[2] == pod)
            image = pod_object["spec"]["containers"][0]["image"]
            status, answer = api.answers.get(image, (200, {"predictions": [7]}))
            return self._answer(status, answer)

        def _watch(self, plural: str, namespace: str, query: dict[str, str]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

            def send(event: Any) -> None:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            def has_client() -> bool:
                can_read, _, _ = select.select([self.connection], [], [], 0)
                return not can_read or bool(self.connection.recv(1, socket.MSG_PEEK))

            api.watches.append(self)
            try:
                with suppress(OSError):
                    api.watch(plural, namespace, query, send, has_client)
                    self.wfile.write(b"0\r\n\r\n")
            finally:
                api.watches.remove(self)

        def _answer(self, code: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            with suppress(OSError):
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    return Handler


def kubeconfig(api: ApiDouble, token: str = "good") -> dict[str, Any]:
    """A kubeconfig for the double, with one context `test`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "team-a"}}],
        "clusters": [{"name": "test", "cluster": {"server": api.url}}],
        "users": [{"name": "test", "user": {"token": token}}],
    }
