"""The documents of a canary on KServe. Mode, version and cluster decide between three methods.

| mode                 | the model is in  | how the traffic is split                                               |
|----------------------|------------------|------------------------------------------------------------------------|
| Knative              | image or bucket  | `canaryTrafficPercent`: Knative splits between two revisions           |
| Standard             | image            | a second InferenceService, and mlapp's HTTPRoute with weights          |
| Standard, from 0.20  | bucket           | `spec.canary`, and mlapp's HTTPRoute if KServe's has no weights        |

In Standard mode, KServe accepts `canaryTrafficPercent` but ignores it. KServe 0.20.0 runs the pods of `spec.canary` but
routes nothing to them. Without the Gateway API nothing can split the traffic; this is an error before any write.
"""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from typing import Any, Literal

from mlapp.deploy.cluster.object_kinds import ROUTE
from mlapp.deploy.cluster.patches import apply_patches, select_canary_patches
from mlapp.deploy.kserve.inference_service import make_inference_service
from mlapp.deploy.kserve.predictor import CONTAINER, make_predictor, make_predictor_model_objects
from mlapp.deploy.kserve.render_context import SECTION, KServeContext

Method = Literal["traffic", "second", "spec"]

GATEWAY: dict[str, Any] = {
    "group": "gateway.networking.k8s.io",
    "kind": "Gateway",
    "name": "kserve-ingress-gateway",
    "namespace": "kserve",
}
"""KServe's default Gateway, for a dry run; a deploy uses the Gateway of KServe's own route for the app."""
DOMAIN = "example.com"
CANARY_NAME = "canary"
EVERY_PATH = "^/.*$"
"""KServe's match of every path."""


def choose_canary_method(context: KServeContext) -> Method:
    """The canary method for these settings on the newest KServe."""
    if context.is_knative:
        return "traffic"
    return "spec" if context.storage_uri is not None else "second"


def render_kserve_canary(
    context: KServeContext, percent: int, live: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The documents of a canary, as far as the settings determine them.

    Args:
        live: the live InferenceService, to which `spec.canary` is added; if None, rendered from the settings.
    """
    method = choose_canary_method(context)
    documents = render_kserve_canary_workload(context, percent, method, live)
    if method != "traffic":
        host = f"{context.names.base}-{context.settings.namespace_name or 'default'}.{DOMAIN}"
        backend = {"name": f"{context.names.base}-predictor", "port": 80}
        matches = [{"path": {"type": "RegularExpression", "value": EVERY_PATH}}]
        rules = [{"matches": matches, "backendRefs": [backend]}]
        route_spec = {"parentRefs": [GATEWAY], "hostnames": [host], "rules": rules}
        documents.append(make_canary_route(context, percent, route_spec))
    return documents


def render_kserve_canary_workload(
    context: KServeContext, percent: int, method: Method, live: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The workload documents of the canary; with the method `traffic`, they also split the traffic."""
    canary_context = replace(context, track="canary")
    documents = make_predictor_model_objects(context)
    if method == "traffic":
        service = make_inference_service(context)
        service["spec"]["predictor"]["canaryTrafficPercent"] = percent
    elif method == "second":
        min_replicas = max(1, math.ceil(context.settings.min_replicas * percent / 100))
        service = make_inference_service(canary_context, min_replicas=min_replicas)
    else:
        service = copy.deepcopy(live) if live is not None else make_inference_service(context)
        predictor = make_predictor(canary_context)
        predictor["model"]["name"] = CONTAINER  # required here, forbidden in the stable one
        min_replicas = math.ceil(service["spec"]["predictor"]["minReplicas"] * percent / 100)
        canary_predictor = {"name": CANARY_NAME, **predictor, "minReplicas": max(1, min_replicas)}
        add_canary(service, [{"trafficPercent": percent, "predictor": canary_predictor}])
        return [*apply_canary_patches(context, documents), service]
    return apply_canary_patches(context, [*documents, service])


def add_canary(service: dict[str, Any], canaries: list[dict[str, Any]]) -> None:
    """Add `spec.canary` to an InferenceService.

    KServe takes the canary's pods out of the live predictor's `minReplicas`. Raise it by their number, so that the live
    release keeps its own pods.
    """
    predictor = service["spec"]["predictor"]
    predictor["minReplicas"] += sum(canary["predictor"]["minReplicas"] for canary in canaries)
    predictor["maxReplicas"] = max(predictor["maxReplicas"], predictor["minReplicas"])
    service["spec"]["canary"] = canaries


def make_canary_route(context: KServeContext, percent: int, route_spec: dict[str, Any]) -> dict[str, Any]:
    """The HTTPRoute that splits the traffic of the app's host by weight, beside KServe's own route of that host.

    Each rule keeps KServe's timeouts, filters and ports; `route_spec` is the spec of KServe's route. Gateways differ in
    whether prefixes or regular expressions take precedence, but prefer longer ones. Each match exists in both forms,
    and longer than KServe's regular expression, so this route wins in both cases.
    """
    rules = [
        {
            **rule,
            "matches": [form for match in rule.get("matches") or [] for form in _list_stronger_canary_matches(match)],
            "backendRefs": [
                part
                for backend in rule.get("backendRefs") or []
                for part in _make_canary_backend(context, backend, percent)
            ],
        }
        for rule in route_spec.get("rules") or []
    ]
    spec = {"parentRefs": route_spec.get("parentRefs") or [GATEWAY], "rules": rules}
    if route_spec.get("hostnames"):
        spec["hostnames"] = route_spec["hostnames"]
    return context.make_document(ROUTE, f"{context.names.base}-split", spec=spec)


def _make_canary_backend(context: KServeContext, backend: dict[str, Any], percent: int) -> list[dict[str, Any]]:
    """The live release's backend with its share, and the canary's on the same port."""
    if backend["name"] != f"{context.names.base}-predictor":
        return [backend]
    canary_backend = {**backend, "name": name_canary_service(context), "weight": percent}
    return [{**backend, "weight": 100 - percent}, canary_backend]


def _list_stronger_canary_matches(match: dict[str, Any]) -> list[dict[str, Any]]:
    """A match by a longer regular expression for the same paths, and one by the expression's literal prefix."""
    path = match.get("path") or {}
    if path.get("type") != "RegularExpression":
        return [match]
    long_expression = re.sub(r"^(\^?)(.*?)(\$?)$", r"\1(\2)\3", path["value"])
    literal_match = re.match(r"(?:[^\\.*+?()\[{|$]|\\\W)*", path["value"].removeprefix("^"))
    prefix = re.sub(r"\\(\W)", r"\1", literal_match[0] if literal_match else "")
    return [
        {**match, "path": {"type": "RegularExpression", "value": long_expression}},
        {**match, "path": {"type": "PathPrefix", "value": prefix[: prefix.rfind("/") + 1] or "/"}},
    ]


def name_canary_service(context: KServeContext) -> str:
    """The Service of the canary's pods: KServe uses the same name for a second service and for `spec.canary`."""
    return f"{context.names.canary}-predictor"


def apply_canary_patches(context: KServeContext, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    patches = select_canary_patches(context.settings.patches, context.names, documents)
    return apply_patches(documents, patches, SECTION)
