"""Render a release of KServe's objects from a Shipment and the settings: pure, deterministic, without requests.

Source: https://github.com/kserve/kserve, pkg/apis/serving and pkg/controller/v1beta1, versions 0.17 to 0.20.
"""

from __future__ import annotations

from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE
from mlapp.deploy.cluster.patches import apply_patches
from mlapp.deploy.kserve.predictor import make_predictor, make_predictor_model_objects, make_predictor_scaling
from mlapp.deploy.kserve.render_context import SECTION, KServeContext
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.kserve.settings_check import refuse_contradictory_kserve_settings
from mlapp.deploy.target import Shipment

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
MODES = {"standard": "Standard", "knative": "Knative"}
AUTOSCALER_ANNOTATION = "serving.kserve.io/autoscalerClass"
VISIBILITY_LABEL = "networking.kserve.io/visibility"
INTERNAL = "cluster-local"
"""Value of `VISIBILITY_LABEL` with which KServe creates no route: the Service in the cluster is the address."""


def render_kserve_release(shipment: Shipment, settings: KServeSettings, serve: Serve) -> list[dict[str, Any]]:
    """The documents of a release, in the order of application.

    Raises:
        ConfigError: settings contradict each other, or a patch does not fit.
    """
    context = KServeContext(shipment, settings, serve)
    refuse_contradictory_kserve_settings(settings)
    documents = [*make_predictor_model_objects(context), make_inference_service(context)]
    return apply_patches(documents, settings.patches, SECTION)


def make_inference_service(context: KServeContext, *, min_replicas: int | None = None) -> dict[str, Any]:
    """The InferenceService of one track. It always sets the mode, as defaults of KServe's code and ConfigMap differ."""
    settings = context.settings
    document = context.make_document(INFERENCE_SERVICE, context.instance)
    annotations = document["metadata"].setdefault("annotations", {})
    annotations[MODE_ANNOTATION] = MODES[settings.mode]
    if settings.mode == "standard":
        annotations[AUTOSCALER_ANNOTATION] = settings.scaler
    elif settings.scaler == "hpa":
        annotations["autoscaling.knative.dev/class"] = "hpa.autoscaling.knative.dev"
        annotations["autoscaling.knative.dev/metric"] = "cpu"
    if context.shipment.code_revision:
        annotations[labels.CODE] = context.shipment.code_revision
    if context.track == "canary":  # reached through the app's own route, without its own host
        document["metadata"]["labels"][VISIBILITY_LABEL] = INTERNAL
    document["spec"] = {"predictor": {**make_predictor(context), **make_predictor_scaling(settings, min_replicas)}}
    return document
