"""What a Kubernetes API server refuses in every request, whatever its kind.

Sources: apimachinery's pkg/api/validation and pkg/util/validation; apiserver's pkg/endpoints/handlers (create, patch,
update); and the validation of each kind in pkg/apis.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LABEL_NAME = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
NOTES = 256 * 1024
"""Bytes of all annotations of an object."""
DATA = 1024 * 1024
"""Bytes of all data of a ConfigMap."""


def find_bad_request(document: Any, name: str, namespace: str, *, is_apply: bool = False) -> str | None:
    """Why a server answers 400 for a body, before it looks at the object."""
    if not isinstance(document, dict) or not document.get("apiVersion") or not document.get("kind"):
        return "Object 'Kind' is missing in the body"
    metadata = document.get("metadata") or {}
    if name and metadata.get("name") != name:
        return f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
    if metadata.get("namespace", namespace) != namespace:
        return "the namespace of the provided object does not match the namespace sent on the request"
    if is_apply and metadata.get("managedFields"):
        return "metadata.managedFields must be nil"
    return None


def find_invalid_fields(plural: str, item: dict[str, Any], live: dict[str, Any] | None) -> list[str]:
    """Why a server answers 422 for an object as it would be stored."""
    found = [*_check_metadata(plural, item["metadata"], "metadata")]
    if plural == "deployments":
        found += _check_deployment(item, live)
    if plural == "configmaps":
        size = sum(len(key) + len(value.encode()) for key, value in (item.get("data") or {}).items())
        found += [f"Too long: may not be more than {DATA} bytes"] if size > DATA else []
        if live and live.get("immutable") and live.get("data") != item.get("data"):
            found.append("data: Forbidden: field is immutable when `immutable` is set")
    if plural == "persistentvolumeclaims" and live and _without_size(item["spec"]) != _without_size(live["spec"]):
        found.append("spec: Forbidden: spec is immutable after creation except resources.requests")
    if plural == "leases":
        times = [item["spec"][name] for name in ("acquireTime", "renewTime") if name in item["spec"]]
        found += [f"spec: {time} is no time with microseconds" for time in times if not MICRO_TIME.fullmatch(time)]
    return found


def _check_metadata(plural: str, metadata: dict[str, Any], path: str) -> Iterator[str]:
    name = metadata.get("name", "")
    pattern, longest = (SERVICE, 63) if plural == "services" else (SUBDOMAIN, 253)
    if plural == "namespaces":
        longest = 63
    if path == "metadata" and (not pattern.fullmatch(name) or len(name) > longest):
        yield f"{path}.name: Invalid value: {name!r}"
    for key, value in (metadata.get("labels") or {}).items():
        if not _is_qualified(key):
            yield f"{path}.labels: Invalid value: {key!r}"
        if not isinstance(value, str) or len(value) > 63 or (value and not LABEL_NAME.fullmatch(value)):
            yield f"{path}.labels: Invalid value: {value!r}"
    notes = metadata.get("annotations") or {}
    for key, value in notes.items():
        if not _is_qualified(key.lower()) or not isinstance(value, str):
            yield f"{path}.annotations: Invalid value: {key!r}"
    if sum(len(key) + len(str(value).encode()) for key, value in notes.items()) > NOTES:
        yield f"{path}.annotations: Too long: may not be more than {NOTES} bytes"


def _check_deployment(item: dict[str, Any], live: dict[str, Any] | None) -> Iterator[str]:
    spec = item["spec"]
    template, chosen = spec["template"], spec["selector"]["matchLabels"]
    yield from _check_metadata("pods", template["metadata"], "spec.template.metadata")
    if not chosen.items() <= template["metadata"]["labels"].items():
        yield "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`"
    if live and live["spec"]["selector"] != spec["selector"]:
        yield "spec.selector: Invalid value: field is immutable"
    for kind in ("containers", "volumes"):
        names = [one["name"] for one in template["spec"].get(kind) or []]
        yield from (
            f"spec.template.spec.{kind}: Duplicate value: {name!r}" for name in set(names) if names.count(name) > 1
        )
        for name in names:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
                yield f"spec.template.spec.{kind}.name: Invalid value: {name!r}"


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    has_prefix = not slash or bool(len(prefix) <= 253 and SUBDOMAIN.fullmatch(prefix))
    return has_prefix and len(name) <= 63 and bool(LABEL_NAME.fullmatch(name))


def _without_size(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "resources"}
