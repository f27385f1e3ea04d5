"""KServe's controller and webhook for tests, on the double of the Kubernetes API.

It does what KServe 0.20 does with an InferenceService: pkg/controller/v1beta1/inferenceservice, and
pkg/apis/serving/v1beta1/inference_service_validation.go. tests/cluster runs the same deploys on a real one.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from api_double import ApiDouble, Key, Refused

MODE = "serving.kserve.io/deploymentMode"
WEBHOOK = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '


class KServeDouble(ApiDouble):
    """A cluster with KServe.

    `minor`: 20 is KServe 0.20. `readable`: whether the controller may be read.
    `has_schema`: false for kserve-crd-minimal, which takes every field. `gateway`: whether KServe makes
    HTTPRoutes, and a Gateway accepts them. `weights`: whether its own route splits for `spec.canary`, as versions after
    0.20.0 do. `default_mode`: what an unknown annotation falls back to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators |= {"inferenceservices", "servingruntimes", "httproutes", "revisions"}
        self.controllers["inferenceservices"] = KServeDouble.reconcile
        self.validate = self.admit
        self.settling = 0  # `_deploy` reads the status of what it has just made
        self.gateway = True
        self.accepting = True
        self.weights = False
        self.minor = 20
        self.readable = True
        self.has_schema = True
        self.idle = False
        self.modes = {"Standard": "Standard", "Knative": "Knative"}

    def read(self, key: Key) -> dict[str, Any]:
        """Also the controller's Deployment, and the CRD's schema, which every user may read."""
        if key == ("deployments", "kserve", "kserve-controller-manager"):
            if not self.readable:
                raise Refused(403, "Forbidden", 'deployments.apps "kserve-controller-manager" is forbidden')
            manager = {"name": "manager", "image": f"kserve/kserve-controller:v0.{self.minor}.0"}
            return {"spec": {"template": {"spec": {"containers": [manager]}}}}
        if key == ("serving.kserve.io", "", "v1beta1"):
            logger = ("batchSize", "mode", "url") if self.minor >= 17 else ("mode", "url")
            schema: dict[str, Any] = {"properties": {name: {} for name in logger}}
            for name in ("logger", "predictor", "spec"):
                schema = {"properties": {name: schema}}
            return {"components": {"schemas": {"io.kserve.serving.v1beta1.InferenceService": schema}}}
        return super().read(key)

    def admit(self, plural: str, item: dict[str, Any], live: dict[str, Any] | None) -> None:
        """The webhooks: what they set, and what they refuse."""
        if plural != "inferenceservices":
            return
        spec, mode = item["spec"], item["metadata"]["annotations"].get(MODE)
        for container in spec["predictor"].get("containers", ()):
            container["resources"] = {
                name: {"cpu": "1", "memory": "2Gi", **container["resources"].get(name, {})}
                for name in ("requests", "limits")
            }
        if "model" in spec["predictor"]:
            item["metadata"]["annotations"]["modelFormat"] = spec["predictor"]["model"]["modelFormat"]["name"]
        if "canary" in spec and self.minor < 20 and self.has_schema:
            raise Refused(500, "InternalError", "failed to create typed patch object: .spec.canary: field not declared")
        if live and live.get("status", {}).get("deploymentMode") not in (None, mode):
            old = live["status"]["deploymentMode"]
            raise Refused(
                403, "Forbidden", f"{WEBHOOK}update rejected: deploymentMode cannot be changed from '{old}' to '{mode}'"
            )
        for trial in spec.get("canary", ()):
            if mode != "Standard":
                raise Refused(403, "Forbidden", f"{WEBHOOK}canary is only supported in Standard deployment mode")
            if "model" not in spec["predictor"]:
                raise Refused(403, "Forbidden", f"{WEBHOOK}canary requires a stable predictor with a model")
            assert trial["predictor"]["name"]
            assert "maxReplicas" not in trial["predictor"]
            assert trial["predictor"].get("minReplicas", 1) <= spec["predictor"]["minReplicas"]

    def reconcile(self, key: Key, item: dict[str, Any]) -> None:
        """What the controller makes of an InferenceService, and what it reports."""
        if self.idle:
            return
        item["metadata"]["finalizers"] = ["inferenceservice.finalizers"]
        mode = self.modes[item["metadata"]["annotations"][MODE]]
        (self._reconcile_knative if mode == "Knative" else self._reconcile_standard)(key, item, mode)

    def _reconcile_standard(self, key: Key, item: dict[str, Any], mode: str) -> None:
        name, spec = key[2], item["spec"]
        own = spec["predictor"]["minReplicas"] - sum(_count_replicas(spec, trial) for trial in spec.get("canary", ()))
        ready = self._deploy(key, item, spec["predictor"], f"{name}-predictor", max(own, 1))
        statuses, names = [], {f"{name}-predictor"}
        for trial in spec.get("canary", ()):
            predictor = {**spec["predictor"], **trial["predictor"]}
            replicas = _count_replicas(spec, trial)
            deployment_name = f"{name}-{predictor['name']}-predictor"
            up = self._deploy(key, item, predictor, deployment_name, replicas)
            names.add(deployment_name)
            statuses.append({"name": predictor["name"], "ready": up, "trafficPercent": trial["trafficPercent"]})
        for other in self.names("deployments", key[1]):
            owners = self.get("deployments", other, key[1])["metadata"].get("ownerReferences") or [{}]
            if owners[0].get("uid") == item["metadata"]["uid"] and other not in names:
                self.delete(("deployments", key[1], other), {})
        local = item["metadata"]["labels"].get("networking.kserve.io/visibility") == "cluster-local"
        if ready and self.gateway and not local:
            backends = [{"name": f"{name}-predictor", "port": 80}]
            if self.weights and statuses:
                backends = [
                    {**backends[0], "weight": 100 - statuses[0]["trafficPercent"]},
                    {"name": f"{name}-canary-predictor", "port": 80, "weight": statuses[0]["trafficPercent"]},
                ]
            route = {
                "parentRefs": [{"name": "shared", "namespace": "gateways", "kind": "Gateway"}],
                "hostnames": [f"{name}-{key[1]}.models.example"],
                "rules": _make_rules(spec["predictor"], backends),
            }
            own = {"name": name, "labels": item["metadata"]["labels"]}
            self.make_for(key, "httproutes", {"kind": "HTTPRoute", "metadata": own, "spec": route})
        ingress: dict[str, Any] = {"type": "IngressReady", "status": "True"}
        if not local and not self.accepting:
            ingress = {"type": "IngressReady", "status": "False", "reason": "ParentStatusNotAvailable"}
        predictor_ready: dict[str, Any] = {"type": "PredictorReady", "status": "True" if ready else "False"}
        if not ready:
            predictor_ready["message"] = "Deployment does not have minimum availability."
        both = ready and ingress["status"] == "True"
        status: dict[str, Any] = {
            "conditions": [predictor_ready, ingress, {"type": "Ready", "status": "True" if both else "False"}],
            "deploymentMode": mode,
            "observedGeneration": self.get("deployments", f"{name}-predictor", key[1])["metadata"]["generation"],
        }
        if both:
            status["url"] = f"http://{name}-{key[1]}.models.example"
            status["address"] = {"url": f"http://{name}-predictor.{key[1]}.svc.cluster.local"}
        model = copy.deepcopy(item.get("status", {}).get("modelStatus", {}))  # lastFailureInfo is never cleared
        model["transitionStatus"] = "UpToDate" if ready else "InProgress"
        if not ready and not item.get("status", {}).get("url"):  # an update keeps `Available`, and tells nothing
            model.update(transitionStatus="BlockedByFailedLoad", lastFailureInfo={"reason": "ModelLoadFailed"})
        status["modelStatus"] = model
        if statuses:
            status["canaryStatuses"] = statuses
        self.set_status(key, status)

    def _deploy(self, key: Key, item: dict[str, Any], predictor: dict[str, Any], name: str, replicas: int) -> bool:
        template = self._template(key, item, predictor)
        template["metadata"]["labels"]["app"] = f"isvc.{name}"
        selector = {"matchLabels": {"app": f"isvc.{name}"}}
        spec = {"replicas": replicas, "selector": selector, "template": template}
        own = {"name": name, "labels": template["metadata"]["labels"]}
        self.make_for(key, "deployments", {"kind": "Deployment", "metadata": own, "spec": spec})
        status = self.get("deployments", name, key[1])["status"]
        return bool(status["updatedReplicas"] == replicas == status["availableReplicas"])

    def _template(self, key: Key, item: dict[str, Any], predictor: dict[str, Any]) -> dict[str, Any]:
        """The pod that KServe makes of a predictor: its own containers, or a runtime's with an init container."""
        pod = {
            name: copy.deepcopy(predictor[name])
            for name in ("containers", "volumes", "securityContext", "automountServiceAccountToken")
            if name in predictor
        }
        if "model" in predictor:
            runtime = self.get("servingruntimes", predictor["model"]["runtime"], key[1])
            assert runtime is not None, "the runtime must be there before the InferenceService"
            pod["containers"] = copy.deepcopy(runtime["spec"]["containers"])
            uri = predictor["model"]["storageUri"]
            pod["initContainers"] = [{"name": "storage-initializer", "args": [uri, "/mnt/models"]}]
        own = {**item["metadata"]["labels"], **predictor.get("labels", {})}
        notes = {**item["metadata"]["annotations"], **predictor.get("annotations", {})}
        notes.pop("modelFormat", None)
        labels = {**own, "serving.kserve.io/inferenceservice": key[2]}
        return {"metadata": {"labels": labels, "annotations": notes}, "spec": pod}

    def _reconcile_knative(self, key: Key, item: dict[str, Any], mode: str) -> None:
        predictor = item["spec"]["predictor"]
        percent = predictor.get("canaryTrafficPercent")
        content = {name: value for name, value in predictor.items() if name != "canaryTrafficPercent"}
        component = copy.deepcopy(item.get("status", {}).get("components", {}).get("predictor", {}))
        revisions = self.names("revisions", key[1])
        latest = self.get("revisions", revisions[-1], key[1]) if revisions else None
        if latest is None or latest["spec"] != content:
            name = f"{key[2]}-predictor-{len(revisions) + 1:05}"
            template = self._template(key, item, predictor)
            own = {"name": name, "labels": template["metadata"]["labels"]}
            self.make_for(key, "revisions", {"kind": "Revision", "metadata": own, "spec": content})
            trouble = self.trouble.get(template["spec"]["containers"][0]["image"])
            for _ in range(predictor["minReplicas"]):
                self._make_pod(key[1], name, template, trouble)
            component["latestCreatedRevision"] = name
            if not trouble:
                component["latestReadyRevision"] = name
        rolled = component.get("latestRolledoutRevision")
        if percent is not None and rolled:
            component["traffic"] = [
                {"latestRevision": True, "revisionName": component["latestReadyRevision"], "percent": percent},
                {"latestRevision": False, "revisionName": rolled, "percent": 100 - percent, "tag": "prev"},
            ]
        elif "latestReadyRevision" in component:
            newest = {"latestRevision": True, "revisionName": component["latestReadyRevision"], "percent": 100}
            component["traffic"], component["latestRolledoutRevision"] = [newest], component["latestReadyRevision"]
        up = component.get("latestReadyRevision") == component["latestCreatedRevision"]
        status = "True" if up else "False"
        reason = {} if up else {"reason": "RevisionFailed", "message": 'Revision failed with message: "crash".'}
        conditions = [
            {"type": "PredictorReady", "status": status, **reason},
            {"type": "IngressReady", "status": "True"},
            {"type": "Ready", "status": status, **reason},
        ]
        self.set_status(
            key,
            {
                "conditions": conditions,
                "deploymentMode": mode,
                "components": {"predictor": component},
                "url": f"http://{key[2]}.{key[1]}.models.example",
            },
        )


def _count_replicas(spec: dict[str, Any], trial: dict[str, Any]) -> int:
    """The pods of a canary, which the controller takes from those of the live predictor."""
    own = math.ceil(spec["predictor"]["minReplicas"] * trial["trafficPercent"] / 100)
    return int(trial["predictor"].get("minReplicas", own))


def _make_rules(predictor: dict[str, Any], backends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules of KServe's route: gRPC on the port of that name, and everything else."""
    every = [{"path": {"type": "RegularExpression", "value": "^/.*$"}}]
    common = {
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "KServe-Isvc-Name"}]}}
        ],
        "timeouts": {"request": f"{predictor.get('timeout', 60)}s"},
    }
    rules = [{**common, "matches": every, "backendRefs": backends}]
    ports = [port for one in predictor.get("containers", ()) for port in one["ports"] if port.get("name") == "grpc"]
    for port in ports:
        path = {"type": "RegularExpression", "value": "^/inference\\.GRPCInferenceService/.*$"}
        matches = [{"path": path, "headers": [{"name": "content-type", "value": "^application/grpc.*"}]}]
        own = [{**backend, "port": port["containerPort"]} for backend in backends]
        rules.insert(0, {**common, "matches": matches, "backendRefs": own})
    return rules
