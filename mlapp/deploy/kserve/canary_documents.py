"""The documents of a canary on KServe, by one of three methods. Mode, version and cluster decide.

| mode                 | the model is in  | how the traffic is split                                               |
|----------------------|------------------|------------------------------------------------------------------------|
| Knative              | image or bucket  | `canaryTrafficPercent`: Knative splits between two revisions           |
| Standard             | image            | a second InferenceService, and an HTTPRoute of ours with weights       |
| Standard, from 0.20  | bucket           | `spec.canary`, and an HTTPRoute of ours where KServe's has no weights  |

In Standard mode, KServe accepts `canaryTrafficPercent` but ignores it. KServe 0.20.0 runs the pods of `spec.canary` but
routes nothing to them. Without the Gateway API nothing can split the traffic; this is an error before any write.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, Literal

from mlapp.deploy.cluster.object_kinds import ROUTE
from mlapp.deploy.cluster.patches import apply_patches, select_canary_patches
from mlapp.deploy.kserve.inference_service import make_inference_service
from mlapp.deploy.kserve.predictor import CONTAINER, make_model_objects, make_predictor
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
CANARY = "canary"


def choose_method(context: KServeContext) -> Method:
    """The canary method for these settings on the newest KServe."""
    if context.is_knative:
        return "traffic"
    return "spec" if context.storage_uri is not None else "second"


def render_canary(context: KServeContext, percent: int, live: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The documents of a canary, as far as the settings determine them.

    Args:
        live: the live InferenceService, to which `spec.canary` is added; if None, rendered from the settings.
    """
    method = choose_method(context)
    documents = render_workload(context, percent, method, live)
    if method != "traffic":
        host = f"{context.names.base}-{context.settings.namespace_name or 'default'}.{DOMAIN}"
        documents.append(make_route(context, percent, [GATEWAY], [host], name_canary_service(context)))
    return documents


def render_workload(
    context: KServeContext, percent: int, method: Method, live: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The workload documents of the canary; with the method `traffic`, they also split the traffic."""
    trial = replace(context, track="canary")
    documents = make_model_objects(context)
    if method == "traffic":
        service = make_inference_service(context)
        service["spec"]["predictor"]["canaryTrafficPercent"] = percent
    elif method == "second":
        least = max(1, math.ceil(context.settings.min_replicas * percent / 100))
        service = make_inference_service(trial, min_replicas=least)
    else:
        service = copy.deepcopy(live) if live is not None else make_inference_service(context)
        predictor = make_predictor(trial)
        predictor["model"]["name"] = CONTAINER  # required here, forbidden in the stable one
        service["spec"]["canary"] = [{"trafficPercent": percent, "predictor": {"name": CANARY, **predictor}}]
        return [*apply_user_patches(context, documents), service]
    return apply_user_patches(context, [*documents, service])


def make_route(
    context: KServeContext, percent: int, parents: list[dict[str, Any]], hosts: list[str], canary_service: str
) -> dict[str, Any]:
    """The HTTPRoute that splits the traffic of the app's host by weight, beside KServe's own route of that host.

    KServe's route matches the regular expression `^/.*$`. Gateways differ in whether prefixes or regular expressions
    take precedence, but prefer longer ones. This route has one match of each type, so it wins in both cases.
    """
    backends = [
        {"name": f"{context.names.base}-predictor", "port": 80, "weight": 100 - percent},
        {"name": canary_service, "port": 80, "weight": percent},
    ]
    matches = [
        {"path": {"type": "RegularExpression", "value": "^(/.*)$"}},
        {"path": {"type": "PathPrefix", "value": "/"}},
    ]
    spec: dict[str, Any] = {"parentRefs": parents, "rules": [{"matches": matches, "backendRefs": backends}]}
    if hosts:
        spec["hostnames"] = hosts
    name = f"{context.names.base}-split"
    return context.make_document(ROUTE, name, spec=spec)


def name_canary_service(context: KServeContext) -> str:
    """The Service of the canary's pods: KServe uses the same name for a second service and for `spec.canary`."""
    return f"{context.names.canary}-predictor"


def apply_user_patches(context: KServeContext, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    patches = select_canary_patches(context.settings.patches, context.names, documents)
    return apply_patches(documents, patches, SECTION)
