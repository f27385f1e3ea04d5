"""Every document fits the schemas of three versions of KServe, over a matrix of settings, and Pod Security."""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlapp.config import Serve, decode_section
from mlapp.deploy import Shipment
from mlapp.deploy.kserve import KServeSettings
from mlapp.deploy.kserve.canary_documents import render_kserve_canary
from mlapp.deploy.kserve.inference_service import render_kserve_release
from mlapp.deploy.kserve.render_context import KServeContext
from mlapp.errors import ConfigError

VERSIONS = ("0.17", "0.19", "0.20")
IMAGE = "registry.example/digits@sha256:" + "1" * 64
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
SCALING = {
    "standard": [{}, {"autoscaler": "none"}, {"max_replicas": 4}, {"autoscaler": "keda", "max_replicas": 4}],
    "knative": [{}, {"min_replicas": 0, "max_replicas": 3}, {"autoscaler": "hpa", "max_replicas": 4}],
}
EXTRAS: list[dict[str, Any]] = [
    {},
    {
        "gpus": 2,
        "timeout": 30,
        "concurrency": 4,
        "resources": {"cpu": 2, "memory": "4Gi", "limits": {"ephemeral-storage": "1Gi"}},
        "env": {"LEVEL": "debug"},
        "secrets": {"DB_PASSWORD": {"secret": "database", "key": "password"}},
        "service_account": "models",
        "image_pull_secrets": ["registry"],
        "node_selector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
    },
]


@cache
def validator(version: str, kind: str) -> jsonschema.Draft202012Validator:
    text = (Path(__file__).parent / "schemas" / f"kserve-{version}.json").read_text()
    return jsonschema.Draft202012Validator(strict(json.loads(text)[kind]))


def strict(schema: Any) -> Any:
    """A CRD's schema as the API server reads it: no unknown fields, and its own int-or-string."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict_schema = {key: strict(value) for key, value in schema.items()}
    if (
        "properties" in strict_schema
        and strict_schema["properties"]
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        strict_schema["additionalProperties"] = False
    return strict_schema


def check(documents: list[dict[str, Any]], versions: tuple[str, ...] = VERSIONS) -> None:
    for document in documents:
        if document["kind"] in ("InferenceService", "ServingRuntime"):
            for version in versions:
                validator(version, document["kind"]).validate(document)


def settings_matrix() -> list[tuple[KServeSettings, str | None]]:
    return [
        (decode_section(KServeSettings, {"mode": mode, **scaling, **extra}, "targets.kserve"), uri)
        for mode in SCALING
        for scaling, extra, uri in itertools.product(SCALING[mode], EXTRAS, (None, "s3://models/digits/a"))
    ]


def shipment(uri: str | None = None) -> Shipment:
    return Shipment("digits", IMAGE, "3", "c0ffee", [{"pixel": 1}], model_uri=uri, manifest='{"version":3}')


@pytest.mark.parametrize("serve", [Serve(), Serve(grpc_port=8001, max_batch=7)])
def test_every_document_fits_each_version(serve):
    for settings, uri in settings_matrix():
        documents = render_kserve_release(shipment(uri), settings, serve)
        check(documents)
        service = documents[-1]
        mode = service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        assert mode == ("Standard" if settings.mode == "standard" else "Knative"), "always written"
        names = [document["kind"] for document in documents]
        assert names == (["ConfigMap", "ServingRuntime", "InferenceService"] if uri else ["InferenceService"])


def test_every_canary_fits_the_versions_that_have_it():
    for settings, uri in settings_matrix():
        documents = render_kserve_canary(KServeContext(shipment(uri), settings, Serve()), 10)
        by_spec = settings.mode == "standard" and uri is not None
        check(documents, ("0.20",) if by_spec else VERSIONS)
        service = next(document for document in documents if document["kind"] == "InferenceService")
        assert ("canary" in service["spec"]) is by_spec


def test_every_pod_is_admitted_by_pod_security_restricted():
    for settings, uri in settings_matrix():
        for document in render_kserve_release(shipment(uri), settings, Serve()):
            spec = document.get("spec", {})
            predictor = spec.get("predictor", spec)
            for container in predictor.get("containers", ()):
                assert container["securityContext"] == RESTRICTED
            for volume in predictor.get("volumes", ()):
                assert set(volume) - {"name"} <= {"emptyDir", "configMap"}


def test_knative_is_given_only_fields_that_it_takes():
    """knative.dev/serving, pkg/apis/serving/fieldmask.go: PodSpecMask and ContainerMask without feature flags."""
    allowed = {"containers", "volumes", "serviceAccountName", "imagePullSecrets", "enableServiceLinks"}
    allowed |= {"automountServiceAccountToken", "nodeSelector", "tolerations"}  # the last two by flags, if they are set
    own = {"labels", "annotations", "minReplicas", "maxReplicas", "timeout", "containerConcurrency"}
    for settings, uri in settings_matrix():
        if settings.mode == "knative" and uri is None:
            predictor = render_kserve_release(shipment(), settings, Serve(grpc_port=9000))[0]["spec"]["predictor"]
            assert set(predictor) <= allowed | own
            (container,) = predictor["containers"]
            assert "lifecycle" not in container
            assert len(container["ports"]) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_replicas": 0}, "min_replicas is 0, and in Standard mode nothing starts a pod"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas 3 is more than max_replicas 2"),
        ({"autoscaler": "knative"}, "`autoscaler: knative` needs `mode: knative`"),
        ({"autoscaler": "keda", "mode": "knative"}, "`autoscaler: keda` works in Standard mode only"),
        ({"mode": "knative", "rollout": {"leave": 9}}, "rollout.leave has no effect in Knative mode"),
        ({"storage_uri": "az://models/1"}, "KServe does not read az://models/1"),
        ({"env": {"DB_PASSWORD": "hunter2"}}, "targets.kserve.env.DB_PASSWORD looks like a secret"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        render_kserve_release(shipment(), decode_section(KServeSettings, settings, "targets.kserve"), Serve())


def test_a_storage_uri_may_hold_the_version():
    settings = decode_section(KServeSettings, {"storage_uri": "pvc://models/digits/{version}"}, "targets.kserve")

    service = render_kserve_release(shipment(), settings, Serve())[-1]

    assert service["spec"]["predictor"]["model"]["storageUri"] == "pvc://models/digits/3"


def test_pods_roll_for_their_content_and_not_for_their_number():
    def revision(**settings: Any) -> str:
        chosen = decode_section(KServeSettings, settings, "targets.kserve")
        return render_kserve_release(shipment(), chosen, Serve())[0]["spec"]["predictor"]["labels"]["mlapp/revision"]

    assert revision(max_replicas=4) == revision(max_replicas=5)
    assert revision() != revision(max_replicas=5), "KServe copies the autoscaler's annotation to the pods"
    assert revision() != revision(gpus=1)
