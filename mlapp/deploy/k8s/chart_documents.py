"""The files of an ejected Helm chart beside its templates: the schema of its values, and the notes that helm prints."""

from __future__ import annotations

import json
from typing import Any

from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, SERVICE

COUNT = {"type": "integer", "minimum": 0}
REPLICAS = {"type": "integer", "minimum": 1}
NAME = {"type": "string", "minLength": 1}
QUANTITIES = {
    "description": "Amounts in Kubernetes form, such as 500m or 1Gi.",
    "type": ["object", "null"],
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "pattern": "^[0-9.]+([eE][0-9]+|[a-zA-Z]{1,2})?$"},
            {"type": "number", "minimum": 0},
        ]
    },
}
PROPERTIES: dict[str, dict[str, Any]] = {
    "image": {
        "description": "The image of the server.",
        "properties": {
            "repository": NAME,
            "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
            "reference": NAME,
        },
    },
    "replicas": {"description": "Number of pods.", **COUNT},
    "env": {
        "description": "Environment variables of the server. Each value is a text: use --set-string for a number.",
        "additionalProperties": {"type": "string"},
    },
    "resources": {
        "description": "Requests and limits of each pod.",
        "properties": {"requests": QUANTITIES, "limits": QUANTITIES},
    },
    "service": {
        "description": "The Service.",
        "properties": {
            "type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        },
    },
    "autoscaling": {
        "description": "Limits of the HorizontalPodAutoscaler, which owns the number of pods.",
        "properties": {"minReplicas": REPLICAS, "maxReplicas": REPLICAS},
    },
    "ingress": {"description": "The Ingress.", "properties": {"host": NAME}},
}
"""The JSON Schema of each value that a chart can have. An object without `additionalProperties` is closed."""

NOTES = """\
{{ .Chart.Name }}{{ with .Chart.AppVersion }} with version {{ . }} of the model{{ end }} is in the namespace \
{{ .Release.Namespace }}.

Wait until it is ready:

  kubectl --namespace {{ .Release.Namespace }} rollout status deployment/DEPLOYMENT

Send it a request:

  kubectl --namespace {{ .Release.Namespace }} port-forward service/SERVICE 8000:{{ .Values.service.port }}
  curl http://127.0.0.1:8000/readyz
{{- with .Values.ingress }}

From outside, it answers at the host {{ .host }}.
{{- end }}
"""


def make_values_schema(values: dict[str, Any]) -> str:
    """The JSON Schema of a chart's values, which helm checks. It also permits what a parent chart may pass."""
    properties: dict[str, Any] = {}
    for name, value in values.items():
        schema = dict(PROPERTIES[name])
        if isinstance(value, dict):
            inner = schema.get("properties", {})
            present = {key: inner[key] for key in inner if key in value or name == "resources"}
            closed = {"properties": present, "additionalProperties": False} if inner else {}
            required = {"required": list(value)} if inner and name != "resources" else {}
            schema = {"type": "object", **schema, **closed, **required}
        properties[name] = schema
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            **properties,
            "global": {"description": "Values of the parent chart.", "type": "object"},
            "enabled": {"description": "For a condition of the parent chart.", "type": "boolean"},
        },
        "required": list(values),
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=2) + "\n"


def make_chart_notes(documents: list[dict[str, Any]]) -> str:
    """The text that helm prints after an installation: how to wait for the pods and reach them."""
    names = {document["kind"]: document["metadata"]["name"] for document in documents}
    return NOTES.replace("DEPLOYMENT", names[DEPLOYMENT.kind]).replace("SERVICE", names[SERVICE.kind])
