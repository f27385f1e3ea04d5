"""Plans the changes of a release. Every object is first applied as a dry run, so a refusal changes nothing.

Before the first write, the dry runs detect fields of other managers, policies and quotas that refuse an object, and
objects of the same name that mlapp did not create.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import MANAGER, Cluster
from mlapp.deploy.cluster.api_errors import ApiError, Conflict, ConflictError
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import (
    AUTOSCALER,
    CLAIM,
    DEPLOYMENT,
    NAMESPACE,
    Kind,
    find_object_kind,
    object_title,
)
from mlapp.deploy.target import DeployError
from mlapp.deploy.yaml_dump import diff_yaml

HANDOVER = f"{MANAGER}-handover"
"""Field manager that owns `spec.replicas` until an autoscaler does. Without an owner, it would reset to one pod."""

CONTROLLER_PREFIX = "deployment.kubernetes.io/"
"""Prefix of annotations in which the Deployment controller keeps counters."""

Action = Literal["create", "change", "remove", "same"]
Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """One object: its current state (`before`), its planned state (`after`), and the applied `document`.

    `handover`: the replica count stays as it is, and an autoscaler owns it from now on.
    """

    document: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    force: bool = False
    handover: bool = False

    @property
    def action(self) -> Action:
        """The kind of change."""
        if self.after is None:
            return "remove"
        if self.before is None:
            return "create"
        return (
            "same"
            if strip_server_fields(self.before) == strip_server_fields(self.after) and not self.handover
            else "change"
        )

    @property
    def title(self) -> str:
        """`Deployment/digits`."""
        return object_title(self.document)


@dataclass(frozen=True)
class ChangePlan:
    """All changes, in the order in which they are made; removals last."""

    changes: tuple[Change, ...]

    @property
    def pending(self) -> list[Change]:
        """The changes that have an effect."""
        return [change for change in self.changes if change.action != "same"]

    @property
    def removals(self) -> list[Change]:
        """The objects that are no longer rendered."""
        return [change for change in self.changes if change.action == "remove"]

    @property
    def summary(self) -> str:
        """`1 to create (…), 2 to change (…)`."""
        parts = []
        for action in ("create", "change", "remove"):
            titles = [change.title for change in self.changes if change.action == action]
            if titles:
                parts.append(f"{action} {', '.join(titles)}")
        return "; ".join(parts) or "nothing to change"


def list_own_objects(cluster: Cluster, names: Names, kinds: Iterable[Kind]) -> dict[Key, dict[str, Any]]:
    """The app's own objects of these kinds, by kind and name, without records and objects that controllers created."""
    selector = f"{labels.APP}={names.base},!{labels.RECORD}"
    with ThreadPoolExecutor(4) as pool:
        lists = pool.map(lambda kind: cluster.list_objects(kind, selector), kinds)
    objects = [item for items in lists for item in items]
    return {
        (item["kind"], item["metadata"]["name"]): item
        for item in objects
        if not item["metadata"].get("ownerReferences")
    }


def list_prunable_kinds(
    prunable: Iterable[Kind], documents: Iterable[dict[str, Any]], old_documents: Iterable[dict[str, Any]] = ()
) -> list[Kind]:
    """The prunable kinds, without those of operators that neither this release nor the previous one needs."""
    used_kinds = {find_object_kind(document) for document in (*documents, *old_documents)}
    groups = {kind.group for kind in used_kinds if not kind.core}  # an operator provides all kinds of its group
    kinds = [kind for kind in prunable if kind.core or kind.group in groups]
    return [*kinds, CLAIM] if CLAIM in used_kinds else kinds


def plan_changes(
    cluster: Cluster,
    names: Names,
    documents: Sequence[dict[str, Any]],
    *,
    prunable: Sequence[Kind],
    old_documents: Sequence[dict[str, Any]] = (),
    keep: Collection[Key] = (),
    prune: bool = True,
    take_over: bool = False,
) -> ChangePlan:
    """Dry-run every document except the Namespace.

    Args:
        documents: the release's rendered documents.
        prunable: the kinds of object that the target creates and may remove, in the order of removal.
        old_documents: the previous release's documents, for their kinds.
        keep: objects to keep although they are not rendered, such as those of a canary.
        prune: whether to remove objects that are no longer rendered.
        take_over: take over fields and objects of other managers.

    Raises:
        ConflictError: other managers own some fields; the message lists all of them.
        DeployError: mlapp did not create an object of the same name; a policy, a quota or the server refuses an object.
    """
    rest = [document for document in documents if find_object_kind(document) != NAMESPACE]
    live = list_own_objects(cluster, names, list_prunable_kinds(prunable, rest, old_documents))
    rendered = {(document["kind"], document["metadata"]["name"]) for document in rest}
    obsolete = {key: item for key, item in live.items() if key not in rendered and key not in keep} if prune else {}
    removes_autoscaler = any(kind == AUTOSCALER.kind for kind, _ in obsolete)

    def try_document(document: dict[str, Any]) -> Change | list[Conflict]:
        before = live.get((document["kind"], document["metadata"]["name"]))
        if before is None:
            return _plan_new_object(cluster, document, take_over)
        return _plan_changed_object(cluster, document, before, take_over, removes_autoscaler)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(try_document, rest))
    conflicts = [conflict for result in results if not isinstance(result, Change) for conflict in result]
    if conflicts:
        raise ConflictError(conflicts)
    removals = [
        Change(item, item, None)
        for item in _sort_planned_objects(obsolete.values(), prunable)
        if is_managed_object(item)
    ]
    return ChangePlan((*(result for result in results if isinstance(result, Change)), *removals))


def ensure_namespace(cluster: Cluster, document: dict[str, Any]) -> Change:
    """Create the Namespace if it is missing, because no other object can be dry-run without it.

    An existing Namespace is used unchanged, even if another tool created it.
    """
    before = cluster.get_object(NAMESPACE, document["metadata"]["name"])
    if before is None:
        return Change(document, None, cluster.apply_object(document))
    return Change(document, before, before)


def _plan_new_object(cluster: Cluster, document: dict[str, Any], take_over: bool) -> Change:
    try:
        return Change(document, None, cluster.create_object(document, dry_run=True), force=take_over)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
    kind = find_object_kind(document)
    existing = cluster.get_object(kind, document["metadata"]["name"]) or {"metadata": {}}
    if not take_over:
        managers = sorted({entry.get("manager", "?") for entry in existing["metadata"].get("managedFields", [])})
        raise DeployError(
            f"{object_title(document)} already exists, and mlapp did not create it ("
            f"{' and '.join(managers) or 'someone else'} did). "
            "Nothing was changed.",
            "Rename the app, remove that object, or take it over with --force-conflicts.",
        )
    return Change(document, existing, cluster.apply_object(document, dry_run=True, force=True), force=True)


def _plan_changed_object(
    cluster: Cluster, document: dict[str, Any], before: dict[str, Any], take_over: bool, removes_autoscaler: bool
) -> Change | list[Conflict]:
    if before["kind"] == DEPLOYMENT.kind and before["spec"].get("paused") and "paused" not in document["spec"]:
        raise DeployError(
            f"{object_title(document)} is paused, so a new release would never roll out; nothing was changed.",
            f"Find out who paused it, then run: kubectl rollout resume deployment/{document['metadata']['name']}",
        )
    force = take_over
    try:
        after = cluster.apply_object(document, dry_run=True, force=force)
    except ConflictError as error:
        foreign_conflicts = [one for one in error.conflicts if not _is_planned_conflict(one, removes_autoscaler)]
        if foreign_conflicts:
            return foreign_conflicts
        force = True
        after = cluster.apply_object(document, dry_run=True, force=True)
    handover = _needs_replica_handover(document, before)
    if handover:
        after = copy.deepcopy(after)
        after["spec"]["replicas"] = before["spec"]["replicas"]
    return Change(document, before, after, force, handover)


def _is_planned_conflict(conflict: Conflict, removes_autoscaler: bool) -> bool:
    """Whether mlapp set the field, or mlapp's autoscaler, which this plan removes."""
    return conflict.owner.startswith(MANAGER) or (removes_autoscaler and conflict.field == ".spec.replicas")


def _needs_replica_handover(document: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether mlapp owns `spec.replicas` in the cluster and no longer renders it, because an autoscaler takes over."""
    if document["kind"] != DEPLOYMENT.kind or "replicas" in document["spec"]:
        return False
    return any(
        entry.get("manager") == MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in before["metadata"].get("managedFields", [])
    )


def is_managed_object(item: dict[str, Any]) -> bool:
    """Whether mlapp applied the object. A label alone is no proof: it can be copied."""
    return any(entry.get("manager") == MANAGER for entry in item["metadata"].get("managedFields", []))


def diff_plan(plan: ChangePlan) -> str:
    """A unified diff from the current to the planned objects; empty if nothing would change."""
    return "".join(
        _diff_planned_object(change.title, change.before, change.after)
        for change in plan.changes
        if change.action != "same"
    )


def _diff_planned_object(title: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    return diff_yaml(
        strip_server_fields(before) if before else None,
        strip_server_fields(after) if after else None,
        f"{title} (in the cluster)" if before else "/dev/null",
        f"{title} (to be)" if after else "/dev/null",
    )


def strip_server_fields(document: dict[str, Any]) -> dict[str, Any]:
    """An object without fields that the server sets, for comparison and display."""
    source = document["metadata"]
    metadata = {key: source[key] for key in ("name", "namespace", "labels") if source.get(key)}
    annotations = {
        key: value for key, value in (source.get("annotations") or {}).items() if not key.startswith(CONTROLLER_PREFIX)
    }
    if annotations:
        metadata["annotations"] = annotations
    header = {"apiVersion": document.get("apiVersion"), "kind": document.get("kind"), "metadata": metadata}
    return {**header, **{key: value for key, value in document.items() if key not in (*header, "status")}}


def _sort_planned_objects(items: Iterable[dict[str, Any]], prunable: Iterable[Kind]) -> list[dict[str, Any]]:
    position = {kind.kind: index for index, kind in enumerate(prunable)}
    return sorted((item for item in items if item["kind"] in position), key=lambda item: position[item["kind"]])
