"""Labels: those that Kubernetes recommends, and mlapp's own for finding its objects."""

from __future__ import annotations

from mlapp.deploy.cluster.naming import Names, make_label_value

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"

APP = "mlapp/app"
"""On every object of an app: selects objects for pruning and deletion."""
OWNER = "mlapp/owner"
REVISION = "mlapp/revision"
"""On the pods: a hash of their template, which distinguishes the releases' pods."""
RECORD = "mlapp/record"
"""On mlapp's own objects: `release` or `lock`. Never pruned."""
STATE = "mlapp/state"
"""On a release's record."""

CODE = "mlapp/code-revision"
"""Annotation: the commit of the user's code."""
CONTAINER = "server"
"""Name of the container in each pod."""
PORT = 8000
"""Port of the server in each pod."""


def make_selector_labels(names: Names, instance: str) -> dict[str, str]:
    """Labels that select the pods of one Deployment. They are immutable once applied, so no value may change."""
    return {NAME: names.base, INSTANCE: instance}


def make_monitor_selector_labels(names: Names) -> dict[str, str]:
    """Labels that select the pods of monitoring. They differ from the servers' labels, which Services select."""
    return {PART_OF: names.base, COMPONENT: "monitor"}


def make_object_labels(names: Names, instance: str, owner: str | None, user_labels: dict[str, str]) -> dict[str, str]:
    """Labels of every object. The user's labels cannot replace those by which mlapp selects objects."""
    own_labels = {
        **make_selector_labels(names, instance),
        COMPONENT: "model-server",
        MANAGED_BY: "mlapp",
        APP: names.base,
    }
    if owner:
        own_labels[OWNER] = make_label_value(owner)
    return {**user_labels, **own_labels}
