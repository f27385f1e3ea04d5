"""A Knative Service: revisions have names, the traffic names revisions, and Cloud Run takes the same document."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import yaml
from api_double import ONE, TWO, ApiDouble, Key, Refused, kubeconfig

from mlapp.config import Serve, Settings, decode_section
from mlapp.deploy import DeployError, Shipment, open_target
from mlapp.deploy.knative import KnativeSettings, KnativeTarget
from mlapp.deploy.knative.service import render_knative_release
from mlapp.errors import ConfigError, UsageError
from tests.operations import CODE, operate_without_code

PLURAL = "services.serving.knative.dev"
CLOUD_RUN = {"name", "image", "ports", "env", "resources", "startupProbe", "livenessProbe"}
"""Fields of a container in https://cloud.google.com/run/docs/reference/yaml/v1."""


class KnativeDouble(ApiDouble):
    """A cluster with Knative Serving, whose revisions start one pod each."""

    def __init__(self) -> None:
        super().__init__()
        self.operators |= {PLURAL, "revisions"}
        self.served["serving.knative.dev"] = ["v1"]
        self.controllers[PLURAL] = KnativeDouble.reconcile
        self.validate = self.admit

    def admit(self, plural: str, item: dict[str, Any], live: dict[str, Any] | None) -> None:
        """The webhook: pkg/apis/serving/v1/revision_validation.go, VerifyNameChange."""
        if plural != PLURAL or live is None:
            return
        new, old = item["spec"]["template"], live["spec"]["template"]
        if new["metadata"]["name"] == old["metadata"]["name"] and new != old:
            words = "validation failed: Saw the following changes without a name change (-old +new)"
            webhook = 'admission webhook "validation.webhook.serving.knative.dev" denied the request: '
            raise Refused(400, "BadRequest", f"{webhook}{words}: spec.template.metadata.name")

    def reconcile(self, key: Key, item: dict[str, Any]) -> None:
        template, ready = item["spec"]["template"], True
        name = template["metadata"]["name"]
        trouble = self.trouble.get(template["spec"]["containers"][0]["image"])
        if self.get("revisions", name) is None:
            own = {"name": name, "labels": template["metadata"]["labels"]}
            self.make_for(key, "revisions", {"kind": "Revision", "metadata": own, "spec": template["spec"]})
            self._make_pod(key[1], name, template, trouble)
        ready = not trouble
        conditions = [
            {"type": "ConfigurationsReady", "status": str(ready), "reason": None if ready else "RevisionFailed"},
            {"type": "Ready", "status": str(ready)},
        ]
        before = item.get("status", {}).get("traffic")
        traffic = copy.deepcopy(item["spec"]["traffic"]) if ready else before
        url = "http://digits.team-a.example.com"
        generation = item["metadata"]["generation"]
        status = {"observedGeneration": generation, "conditions": conditions, "traffic": traffic, "url": url}
        self.set_status(key, status)


@pytest.fixture
def api() -> Iterator[KnativeDouble]:
    double = KnativeDouble()
    yield double
    double.close()


@pytest.fixture
def target(api, tmp_path, monkeypatch) -> Callable[..., KnativeTarget]:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(api)))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("mlapp.deploy.knative.readiness.FAILURE_PATIENCE", 0.2)
    return lambda **settings: open_target("knative", "digits", Settings(targets={"knative": settings}))


def ship(image: str = ONE, version: str = "1") -> Shipment:
    return Shipment("digits", image, version, "c0ffee", example=[{"pixel": 1}])


def render(**settings: Any) -> dict[str, Any]:
    chosen = decode_section(KnativeSettings, settings, "targets.knative")
    (document,) = render_knative_release(ship(), chosen, Serve())
    return document


def test_a_release_is_a_named_revision_with_all_traffic(api, target):
    place = target()
    release = place.apply(ship(ONE))
    place.apply(ship(TWO, "2"))

    service = api.get(PLURAL, "digits")
    assert (release.url, place.status().traffic) == ("http://digits.team-a.example.com", {2: 100})
    assert service["spec"]["traffic"] == [
        {"revisionName": service["spec"]["template"]["metadata"]["name"], "percent": 100}
    ]
    assert place.predict([{"pixel": 1}])["predictions"] == [7]
    assert next(line.text for line in place.logs(tail=1))
    assert place.rollback().note == "rollback to 1"
    assert place.delete()[0] == "Service/digits"


def test_every_change_of_the_template_is_a_revision_of_its_own(api, target):
    patch = {"kind": "Service", "merge": {"spec": {"template": {"metadata": {"labels": {"tier": "b"}}}}}}
    for number, change in enumerate(({}, {"labels": {"team": "a"}}, {"patches": [patch]}), 1):
        target(**change).apply(ship(ONE))
        assert len(api.names("revisions")) == number
        assert target(**change).status().traffic == {number: 100}


def test_a_canary_gets_its_percent_and_is_promoted_without_a_new_pod(api, target):
    place = target()
    place.apply(ship(ONE))

    place.canary(ship(TWO, "2"), 20)
    assert place.status().traffic == {1: 80, 2: 20}
    pods = api.names("pods")

    assert place.promote().state == "live"
    assert (place.status().traffic, api.names("pods")) == ({2: 100}, pods)


def test_an_aborted_canary_gives_all_traffic_to_the_live_revision(api, target):
    place = target()
    place.apply(ship(ONE))
    live = api.get(PLURAL, "digits")["spec"]["traffic"]
    place.canary(ship(TWO, "2"), 20)

    place.abort()

    assert api.get(PLURAL, "digits")["spec"]["traffic"] == live
    assert place.status().traffic == {1: 100}


def test_a_release_that_does_not_become_ready_leaves_the_one_before_live(api, target):
    place = target()
    place.apply(ship(ONE))
    api.trouble[TWO] = "crash"

    with pytest.raises(DeployError, match="Rolled back: release 1 is live"):
        place.apply(ship(TWO, "2"))

    assert place.status().traffic == {1: 100}


def test_a_cluster_without_knative_is_reported_before_anything_is_written(api, target):
    api.operators.clear()

    with pytest.raises(DeployError, match="does not know Service: Knative Serving is not installed"):
        target().apply(ship())
    assert api.names("leases") == []


def test_the_service_has_only_what_cloud_run_takes():
    document = render(min_replicas=1, max_replicas=5, timeout=30, concurrency=8, service_account="models")
    template = document["spec"]["template"]

    assert set(template["spec"]) == {"containers", "containerConcurrency", "timeoutSeconds", "serviceAccountName"}
    (container,) = template["spec"]["containers"]
    assert set(container) == CLOUD_RUN
    assert set(container["resources"]) == {"limits"}
    assert template["metadata"]["annotations"] == {
        "autoscaling.knative.dev/minScale": "1",
        "autoscaling.knative.dev/maxScale": "5",
    }
    probe = container["startupProbe"]
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 240


def test_labels_for_cloud_run_have_no_domain_and_it_is_not_deployed_to_by_us(target):
    document = render(platform="cloud_run")

    assert document["metadata"]["labels"]["managed-by"] == "mlapp"
    assert all("/" not in key for key in document["spec"]["template"]["metadata"]["labels"])
    with pytest.raises(UsageError, match="mlapp cannot deploy to Cloud Run itself"):
        target(platform="cloud_run").apply(ship())


def test_pod_security_restricted_is_asked_for():
    (container,) = render(pod_security="restricted")["spec"]["template"]["spec"]["containers"]

    assert container["securityContext"]["runAsNonRoot"] is True
    with pytest.raises(ConfigError, match="Cloud Run refuses"):
        render(pod_security="restricted", platform="cloud_run")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rollout": {"leave": 9}}, "rollout.leave has no effect: Knative itself keeps a stopping pod"),
        ({"resources": {"tmp": "1Gi"}}, "resources.tmp has no effect: only `pod_security: restricted` mounts"),
        ({"resources": {"cpu": 3}}, "resources.cpu has no effect: the limit, resources.cpu_limit, is also the request"),
        ({"resources": {"memory": "512Mi", "memory_limit": "2Gi"}}, "resources.memory has no effect"),
    ],
)
def test_a_setting_without_an_effect_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        render(**settings)
    render(resources={"cpu": 3, "cpu_limit": None, "memory": "1Gi", "tmp": "1Gi"}, pod_security="restricted")


def test_a_dry_run_of_a_canary_needs_no_cluster(target, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    (document,) = target().render_canary(ship(), 10)

    assert [entry["percent"] for entry in document["spec"]["traffic"]] == [90, 10]


def test_settings_are_closed():
    with pytest.raises(ConfigError, match="replicas"):
        decode_section(KnativeSettings, {"replicas": 1}, "targets.knative")
    assert msgspec.structs.asdict(KnativeSettings())["min_replicas"] == 0


def test_every_operation_works_without_the_code(mlapp, project, target):
    place = target()
    for act in (
        lambda: place.apply(ship(ONE)),
        lambda: place.apply(ship(TWO, "2")),
        lambda: place.canary(ship(ONE, "3"), 20),
    ):
        act()
    settings = "name: digits\ntargets: {knative: {}}\n"

    operate_without_code(
        mlapp, project(CODE, mlapp__yaml=settings), "knative", lambda: place.canary(ship(ONE, "4"), 20)
    )
