"""Labels: the recommended ones of Kubernetes, and the few of our own by which objects are found again."""

from __future__ import annotations

from mlapp.deploy.cluster.naming import Names, make_label_value

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"

APP = "mlapp/app"
"""On every object of an app: what pruning and deleting look for."""
OWNER = "mlapp/owner"
REVISION = "mlapp/revision"
"""On the pods: a hash of their template, which distinguishes the pods of releases."""
RECORD = "mlapp/record"
"""On what belongs to mlapp rather than to the app: `release`, `lock`. Never pruned."""
STATE = "mlapp/state"
"""On a release's record."""

CODE = "mlapp/code-revision"
"""Annotation: the commit of the user's code."""
CONTAINER = "server"
"""Name of the container in each pod."""
PORT = 8000
"""Port of the server in each pod."""


def selector_labels(names: Names, instance: str) -> dict[str, str]:
    """Labels that choose the pods of one Deployment. Immutable once applied, so nothing that may change is in it."""
    return {NAME: names.base, INSTANCE: instance}


def object_labels(names: Names, instance: str, owner: str | None, more: dict[str, str]) -> dict[str, str]:
    """Labels of every object; the user's own cannot replace those that we select by."""
    own = {**selector_labels(names, instance), COMPONENT: "model-server", MANAGED_BY: "mlapp", APP: names.base}
    if owner:
        own[OWNER] = make_label_value(owner)
    return {**more, **own}
