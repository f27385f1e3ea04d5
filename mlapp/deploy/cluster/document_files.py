"""Documents as separate files, for other tools to apply."""

from __future__ import annotations

import copy
import re
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.object_kinds import NAMESPACE


def strip_owner_labels(document: dict[str, Any]) -> dict[str, Any]:
    """The document without mlapp's ownership labels, because another tool now manages the object."""
    document = copy.deepcopy(document)
    for metadata in (document["metadata"], find_pod_template(document).get("metadata", {})):
        for label in (labels.MANAGED_BY, labels.APP, labels.REVISION):
            metadata.get("labels", {}).pop(label, None)
    selector = document.get("spec", {}).get("selector", {})
    if document["kind"] == "ServiceMonitor":
        selector["matchLabels"] = {labels.NAME: document["metadata"]["labels"][labels.NAME]}
    return document


def find_pod_template(document: dict[str, Any]) -> dict[str, Any]:
    """The template of the object's pods, such as of a Deployment or a CronJob; empty if it has none."""
    spec = document.get("spec", {})
    template: dict[str, Any] = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return template


def _name_document_file(document: dict[str, Any]) -> str:
    if document["kind"] == NAMESPACE.kind:
        return "00-namespace.yaml"  # kubectl applies the files of a folder in name order
    return re.sub(r"(?<!^)(?=[A-Z])", "-", document["kind"]).lower().replace("h-t-t-p-", "http-") + ".yaml"


def group_documents_by_file(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Documents by file name: the kind, or kind and name if there are several of a kind."""
    files: dict[str, dict[str, Any]] = {}
    for document in documents:
        name = _name_document_file(document)
        if name in files:
            name = name.replace(".yaml", f"-{document['metadata']['name']}.yaml")
        files[name] = document
    return files
