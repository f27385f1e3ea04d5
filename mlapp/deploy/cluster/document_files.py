"""Documents as files of their own, for somebody else than mlapp to apply."""

from __future__ import annotations

import copy
import re
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.object_kinds import NAMESPACE


def strip_owner_labels(document: dict[str, Any]) -> dict[str, Any]:
    """Without the labels by which mlapp finds its own: these objects are somebody else's now."""
    document = copy.deepcopy(document)
    for metadata in (document["metadata"], document.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in (labels.MANAGED_BY, labels.APP, labels.REVISION):
            metadata.get("labels", {}).pop(label, None)
    selector = document.get("spec", {}).get("selector", {})
    if document["kind"] == "ServiceMonitor":
        selector["matchLabels"] = {labels.NAME: document["metadata"]["labels"][labels.NAME]}
    return document


def _name_document_file(document: dict[str, Any]) -> str:
    if document["kind"] == NAMESPACE.kind:
        return "00-namespace.yaml"  # kubectl takes the files of a folder in the order of their names
    return re.sub(r"(?<!^)(?=[A-Z])", "-", document["kind"]).lower().replace("h-t-t-p-", "http-") + ".yaml"


def group_by_file(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """File names by kind; by kind and name where there are several."""
    files: dict[str, dict[str, Any]] = {}
    for document in documents:
        name = _name_document_file(document)
        if name in files:
            name = name.replace(".yaml", f"-{document['metadata']['name']}.yaml")
        files[name] = document
    return files
