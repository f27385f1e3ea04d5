"""The minimal permissions for deploying: a Role and its ServiceAccount. Tests deploy with exactly these."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import CONFIG_MAP, NAMESPACE, Kind, find_object_kind

READ_VERBS = ["get", "list"]
WRITE_VERBS = ["create", "patch"]


def make_rbac(
    names: Names,
    documents: Iterable[dict[str, Any]],
    prunable: Collection[Kind],
    watched: Collection[Kind],
    namespace: str,
) -> list[dict[str, Any]]:
    """ServiceAccount, Role and RoleBinding; also a ClusterRole if mlapp creates the Namespace.

    Args:
        documents: all documents that may be applied.
        prunable: the kinds that are listed and may be removed.
        watched: the kinds, besides pods and events, to watch while a release starts.
        namespace: the app's namespace.
    """
    applied_kinds = {find_object_kind(document) for document in documents} | {CONFIG_MAP}
    groups = {kind.group for kind in applied_kinds if not kind.core}
    listed_kinds = {kind for kind in prunable if kind.core or kind.group in groups}
    rules: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def allow_verbs(group: str, resource: str, verbs: Iterable[str]) -> None:
        rules.setdefault((group, tuple(verbs)), []).append(resource)

    for kind in sorted(applied_kinds | listed_kinds | set(watched), key=lambda kind: (kind.group, kind.plural)):
        if not kind.namespaced:
            continue
        verbs = [*READ_VERBS, *(["watch"] if kind in watched else []), *(WRITE_VERBS if kind in applied_kinds else [])]
        is_removed = kind in prunable or kind == CONFIG_MAP  # old records are removed
        allow_verbs(kind.group, kind.plural, [*verbs, *(["delete"] if is_removed else [])])
    allow_verbs("coordination.k8s.io", "leases", ["get", "create", "update", "delete"])
    allow_verbs("", "pods", ["list", "watch"])
    allow_verbs("", "events", ["list", "watch"])
    allow_verbs("", "pods/log", ["get"])
    allow_verbs("", "pods/portforward", ["get", "create"])
    name = f"{names.base}-deployer"
    namespace_field = {"namespace": namespace}
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    role = [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs), resources in rules.items()
    ]
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, **namespace_field}},
        {**_make_rbac_reference("Role"), "metadata": {"name": name, **namespace_field}, "rules": role},
        {
            **_make_rbac_reference("RoleBinding"),
            "metadata": {"name": name, **namespace_field},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [account],
        },
    ]
    if NAMESPACE in applied_kinds:
        objects += _make_namespace_rbac(namespace, account)
    return objects


def _make_namespace_rbac(namespace: str, account: dict[str, str]) -> list[dict[str, Any]]:
    """ClusterRole and ClusterRoleBinding that let an account create one Namespace."""
    name = f"{namespace}-{account['name']}"  # each namespace of the app has its own
    own_namespace = {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [namespace]}
    return [
        {
            **_make_rbac_reference("ClusterRole"),
            "metadata": {"name": name},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create"]},
                {**own_namespace, "verbs": ["get", "patch"]},
            ],
        },
        {
            **_make_rbac_reference("ClusterRoleBinding"),
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [account],
        },
    ]


def _make_rbac_reference(kind: str) -> dict[str, str]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind}
