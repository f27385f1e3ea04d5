"""Explains errors of the API server: a missing permission, an exceeded quota, a policy, or a wrong field."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mlapp.deploy.cluster.connection import Connection
from mlapp.deploy.cluster.object_kinds import OPERATORS
from mlapp.deploy.target import DeployError

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), (?P<detail>.*)", re.DOTALL)
_WEBHOOK = re.compile(
    r'admission webhook "(?P<policy>[^"]+)" denied the request(?: without explanation)?:? ?(?P<words>.*)', re.DOTALL
)
_POLICY = re.compile(
    r"ValidatingAdmissionPolicy '(?P<policy>[^']+)' with binding '[^']+' denied request: (?P<words>.*)", re.DOTALL
)


class ApiError(DeployError):
    """The API server refused a call. `code` is the HTTP status; `reason` the machine-readable reason."""

    def __init__(self, what: str, todo: str, code: int, reason: str = "", message: str = "") -> None:
        super().__init__(what, todo)
        self.code = code
        self.reason = reason
        self.message = message


class UnreachableError(DeployError):
    """The API server does not answer."""


@dataclass(frozen=True)
class Conflict:
    """A field that another field manager, `owner`, has set."""

    object: str
    field: str
    owner: str


class ConflictError(ApiError):
    """Server-side apply met fields that other managers own."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        details = "; ".join(f"{one.object} {one.field} is owned by {one.owner}" for one in conflicts)
        super().__init__(
            f"Fields of this release belong to others, and nothing was changed: {details}.",
            "Remove the field from the setting or patch, ask its owner, or overwrite it with --force-conflicts.",
            409,
            "Conflict",
        )
        self.conflicts = conflicts


def make_api_error(code: int, body: bytes | str, verb: str, object: str, connection: Connection) -> ApiError:
    """The error for an HTTP response with a status above 299.

    Args:
        code: the HTTP status.
        body: the response, a Status object or any other content.
        verb: the attempted action as an RBAC verb: get, list, create, patch, delete.
        object: the object of the action, such as `Deployment/digits`.
        connection: names the context and the target's settings.
    """
    status = _decode_api_status(body)
    message, reason = status.get("message") or "", status.get("reason") or ""
    if code == 401 or 'User "system:anonymous"' in message:
        return ApiError(
            f"The cluster ({connection.context}) rejects your login: it is wrong or has expired.",
            "Log in again, and test the login with `kubectl get pods`.",
            code,
            reason,
            message,
        )
    if code == 409 and (conflicts := _parse_api_conflicts(status, object)):
        return ConflictError(conflicts)
    what, todo = _explain_api_error(code, message, reason, verb, object, connection)
    return ApiError(what, todo, code, reason, message)


def _explain_api_error(
    code: int, message: str, reason: str, verb: str, object: str, connection: Connection
) -> tuple[str, str]:
    context, section = connection.context, connection.section
    if match := _QUOTA.search(message):
        sizes = ", ".join(f"{section}.{name}" for name in connection.size_settings)
        return (
            f"{object} exceeds the namespace's quota '{match['quota']}': {match['detail'].strip()}",
            f"Ask for less ({sizes}), or for a larger quota.",
        )
    if match := _WEBHOOK.search(message) or _POLICY.search(message):
        words = match["words"].strip() or "no reason given"
        return (
            f"{object} was refused by the cluster's policy '{match['policy']}': {words}",
            f"Change the field that the policy names, by a setting of {section} or {section}.patches.",
        )
    if "violates PodSecurity" in message:
        todo = "Change the field that the message names, or ask for a namespace of another Pod Security level."
        if "storage-initializer" in message:
            todo = (
                "The container is KServe's: set a securityContext in its ClusterStorageContainer, use a namespace "
                "of level baseline, or serve the image's own model: targets.kserve.storage_uri: image."
            )
        return f"{object} was refused by Pod Security: {message[message.index('violates PodSecurity') :]}", todo
    if match := _FORBIDDEN.search(message):
        resource = match["resource"] + (f".{match['group']}" if match["group"] else "")
        where = f" in namespace {match['namespace']}" if match["namespace"] else ""
        return (
            f"{match['user']} may not {match['verb']} {resource}{where}.",
            "Ask the cluster's operator for it: `mlapp eject rbac` prints the minimal Role.",
        )
    if code == 403:
        return f"May not {verb} {object}: {message}", "Ask the cluster's operator; `mlapp eject rbac` prints a Role."
    if match := re.search(r'namespaces "([^"]+)" not found', message):
        return (
            f"There is no namespace '{match[1]}' in {context}.",
            f"Ask its operator to create it, or let mlapp create it: {section}.namespace: "
            f"{{name: {match[1]}, create: true}}.",
        )
    kind = object.partition("/")[0]
    if code == 404 and kind in OPERATORS:
        return (
            f"The cluster does not know {kind}: {OPERATORS[kind]} is not installed.",
            f"Ask the cluster's operator to install it, or remove its setting from {section}.",
        )
    if code == 404:
        return f"{object} does not exist in {context}.", "Look at `mlapp status`."
    if reason == "Terminating" or "is being terminated" in message:
        return f"{object} cannot be created: its namespace is being deleted.", "Wait until the namespace is deleted."
    if code == 422 or reason == "Invalid":
        return (
            f"The cluster does not accept {object}: {message}",
            "Change the setting or the patch that the message names.",
        )
    return (
        f"The cluster refused to {verb} {object}: {message or f'HTTP {code}'}",
        "Fix the cause that the message names, and try again.",
    )


def _decode_api_status(body: bytes | str) -> dict[str, Any]:
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        status = json.loads(text)
    except ValueError:
        return {"message": text.strip()[:500]}
    return status if isinstance(status, dict) else {"message": text.strip()[:500]}


def _parse_api_conflicts(status: dict[str, Any], object: str) -> list[Conflict]:
    causes = (status.get("details") or {}).get("causes") or []
    conflicts = []
    for cause in causes:
        if cause.get("reason") == "FieldManagerConflict":
            owner = re.search(r'conflict with "([^"]*)"', cause.get("message", ""))
            conflicts.append(Conflict(object, cause.get("field", ""), owner[1] if owner else "somebody else"))
    return conflicts
