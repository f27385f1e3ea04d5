"""Deploying to a real cluster: accepted objects, quoted failures, permissions and rollbacks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from mlapp.deploy import DeployError
from mlapp.deploy.cluster.object_kinds import BUDGET, DEPLOYMENT, ROUTE, SERVICE
from mlapp.deploy.cluster.transport import ApiRequest


def test_the_main_way_deploy_change_roll_back_delete(target, ship):
    messages = []
    first = target(env={"COLOR": "red"})

    release = first.apply(ship("1"), progress=messages.append)

    assert (release.number, release.state) == (1, "live")
    assert first.predict([{"x": 1}]) == {"predictions": [1], "version": "1", "color": "red"}
    status = first.status()
    assert (status.ready, status.desired, status.problems) == (1, 1, ())
    assert status.replicas[0].release == 1
    assert [line.text for line in first.logs()] == ["version 1 answers"]

    second = target(env={"COLOR": "blue"}, replicas=2)
    second.apply(ship("2"))
    assert second.predict([{"x": 1}])["color"] == "blue"
    assert second.cluster.get_object(BUDGET, "digits")

    back = second.rollback()
    assert (back.number, back.note) == (3, "rollback to 1")
    assert second.predict([{"x": 1}]) == {"predictions": [1], "version": "1", "color": "red"}
    assert second.cluster.get_object(BUDGET, "digits") is None
    assert [(release.number, release.state) for release in second.releases()] == [
        (1, "superseded"),
        (2, "superseded"),
        (3, "live"),
    ]

    second.delete()
    assert second.cluster.get_object(DEPLOYMENT, "digits") is None
    assert second.releases() == []


def test_the_same_again_changes_nothing(target, ship):
    target().apply(ship())
    before = target().cluster.get_object(DEPLOYMENT, "digits")["metadata"]["resourceVersion"]

    assert target().diff(ship()) == ""
    assert target().apply(ship()).number == 1
    assert target().cluster.get_object(DEPLOYMENT, "digits")["metadata"]["resourceVersion"] == before


def test_the_diff_shows_what_would_change_and_changes_nothing(target, ship):
    target().apply(ship())

    text = target(env={"COLOR": "red"}).diff(ship())

    assert "+  COLOR: red" in text
    assert "--- Deployment/digits (in the cluster)" in text
    assert target().diff(ship()) == ""


def test_a_conflict_names_who_owns_the_field(target, ship):
    target().apply(ship())
    cluster = target().cluster
    scaled = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "digits"},
        "spec": {"replicas": 2},
    }
    cluster.apply_object(scaled, manager="ops", force=True)

    with pytest.raises(DeployError, match=r"Deployment/digits \.spec\.replicas is owned by ops"):
        target().apply(ship("2"))
    assert len(target().releases()) == 1

    target().apply(ship("2"), take_over=True)
    assert cluster.get_object(DEPLOYMENT, "digits")["spec"]["replicas"] == 1


def test_replicas_go_to_an_autoscaler_and_return(target, ship):
    target(replicas=2).apply(ship())

    scaling = target(autoscaling={"min": 2, "max": 3})
    scaling.apply(ship())
    assert scaling.cluster.get_object(DEPLOYMENT, "digits")["spec"]["replicas"] == 2

    target(replicas=1).apply(ship())
    assert scaling.cluster.get_object(DEPLOYMENT, "digits")["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("fault", "settings", "message"),
    [
        ("crash", {}, "No module named 'sklearn'"),
        ("wrong", {}, "answered 500 to a prediction: the predictor raised ValueError"),
        ("unready", {"rollout": {"timeout": 20}}, "Readiness probe failed: HTTP probe failed with statuscode: 503"),
        ("", {"resources": {"cpu": "900"}, "rollout": {"timeout": 10}}, "Insufficient cpu"),
    ],
)
def test_a_release_that_does_not_become_ready_gives_the_reason_and_rolls_back(target, ship, fault, settings, message):
    target().apply(ship("1"))

    with pytest.raises(DeployError) as caught:
        target(**settings).apply(ship("2", fault))

    assert message in caught.value.what
    assert "Rolled back: release 1 is live." in caught.value.what
    assert target().predict([{"x": 1}])["version"] == "1"


def test_an_image_that_does_not_exist(target, ship, image):
    repository = image("1").partition("@")[0]

    with pytest.raises(DeployError, match="cannot pull its image"):
        target().apply(ship(reference=f"{repository}@sha256:{'0' * 64}"))


def test_a_quota_is_named(target, ship, namespace):
    quota = {"metadata": {"name": "compute"}, "spec": {"hard": {"pods": "1"}}}
    cluster = target().cluster
    target().apply(ship("1"))
    cluster.transport.send_json(
        ApiRequest(
            "POST", f"/api/v1/namespaces/{namespace}/resourcequotas", body=quota, verb="create", object="ResourceQuota"
        )
    )
    time.sleep(2)

    with pytest.raises(DeployError, match="exceeds the namespace's quota 'compute'") as caught:
        target().apply(ship("2"))
    assert "Rolled back: release 1 is live." in caught.value.what


def test_a_quota_that_just_fits_lets_the_old_pods_leave_first(target, ship, namespace):
    target(replicas=2).apply(ship("1"))
    quota = {"metadata": {"name": "compute"}, "spec": {"hard": {"pods": "3"}}}
    target().cluster.transport.send_json(
        ApiRequest(
            "POST", f"/api/v1/namespaces/{namespace}/resourcequotas", body=quota, verb="create", object="ResourceQuota"
        )
    )
    time.sleep(2)

    assert target(replicas=2).apply(ship("2")).number == 2


def test_a_policy_is_quoted(target, ship, api, namespace):
    name = f"{namespace}-no-color"
    group = "/apis/admissionregistration.k8s.io/v1"
    match = {
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]
    }
    rule = {"expression": "!has(object.data) || !('COLOR' in object.data)", "message": "no colors in this cluster"}
    policy = {
        "metadata": {"name": name},
        "spec": {"matchConstraints": match, "validations": [rule], "failurePolicy": "Fail"},
    }
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": only},
    }
    paths = {f"{group}/validatingadmissionpolicies": policy, f"{group}/validatingadmissionpolicybindings": binding}
    try:
        for path, body in paths.items():
            api.transport.send_json(ApiRequest("POST", path, body=body, verb="create", object="policy"))
        time.sleep(5)

        with pytest.raises(DeployError, match=r"refused by the cluster's policy .*: no colors in this cluster"):
            target(env={"COLOR": "red"}).apply(ship())
        assert target().cluster.get_object(SERVICE, "digits") is None
    finally:
        for path in paths:
            api.transport.send_json(ApiRequest("DELETE", f"{path}/{name}", verb="delete", object="policy"))


def as_account(kubeconfig: str, folder: Path, token: str) -> Path:
    """The test's kubeconfig with another login."""
    raw = yaml.safe_load(Path(kubeconfig).read_text())
    for user in raw["users"]:
        user["user"] = {"token": token}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(raw))
    return file


def test_exactly_the_printed_role_is_enough(target, ship, namespace, tmp_path):
    admin = target(replicas=2, autoscaling={})
    for document in admin.rbac(ship()):
        plural = {"ServiceAccount": "serviceaccounts", "Role": "roles", "RoleBinding": "rolebindings"}[document["kind"]]
        root = "/api/v1" if plural == "serviceaccounts" else "/apis/rbac.authorization.k8s.io/v1"
        admin.cluster.transport.send_json(
            ApiRequest("POST", f"{root}/namespaces/{namespace}/{plural}", body=document, verb="create", object=plural)
        )
    token = admin.cluster.transport.send_json(
        ApiRequest(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/digits-deployer/token",
            body={"spec": {"expirationSeconds": 3600}},
            verb="create",
            object="token",
        )
    )["status"]["token"]
    file = as_account(admin.settings.kubeconfig, tmp_path, token)

    deployer = target(replicas=2, autoscaling={}, kubeconfig=str(file))
    release = deployer.apply(ship("1"))
    deployer.apply(ship("2"))
    deployer.rollback()
    deployer.canary(ship("2"), 50)
    deployer.promote()

    assert release.by == f"system:serviceaccount:{namespace}:digits-deployer"
    end = time.monotonic() + 90  # the autoscaler looks every 15 s, and brings the least that it may
    while deployer.status().ready < 2 and time.monotonic() < end:
        time.sleep(1)
    assert deployer.status().ready == 2
    assert deployer.predict([1])["version"] == "2"
    assert list(deployer.logs(tail=1))
    deployer.delete()


def test_without_rights_it_says_which(target, ship, namespace, tmp_path):
    admin = target()
    token = admin.cluster.transport.send_json(
        ApiRequest(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token",
            body={"spec": {}},
            verb="create",
            object="token",
        )
    )["status"]["token"]
    file = as_account(admin.settings.kubeconfig, tmp_path, token)

    with pytest.raises(DeployError) as caught:
        target(kubeconfig=str(file)).apply(ship())

    account = f"system:serviceaccount:{namespace}:default"
    assert caught.value.what == f"{account} may not create leases.coordination.k8s.io in namespace {namespace}."


def test_a_namespace_is_made_when_asked_for(target, ship, api, namespace):
    from mlapp.deploy.cluster.object_kinds import NAMESPACE

    name = f"{namespace}-b"
    try:
        with pytest.raises(DeployError, match=f"There is no namespace '{name}'"):
            target(namespace=name).apply(ship())
        target(namespace={"name": name, "create": True}).apply(ship())
        labels = api.get_object(NAMESPACE, name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    finally:
        if found := api.get_object(NAMESPACE, name):
            api.delete_object(found)


def test_the_server_accepts_what_a_dry_run_prints(target, ship):
    from mlapp.deploy.yaml_dump import dump_yaml_documents

    shipper = target(replicas=2, ingress={"host": "digits.example"}, autoscaling={}, volumes={"d": {"path": "/d"}})
    text = dump_yaml_documents(shipper.render(ship()))

    done = subprocess.run(
        ["kubectl", "apply", "--dry-run=server", "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": shipper.settings.kubeconfig},
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(shipper.render(ship()))
    assert "Warning" not in done.stderr.replace("version difference", "")


def test_the_calls_and_the_time_of_a_deploy(target, ship, record_property):
    """What is ours: from the call to the pods' own start, and from the last pod's readiness to the end."""
    first = target()
    first.apply(ship("1"))
    calls = len(first.cluster.calls)
    again = target()
    messages = []
    started = time.monotonic()

    again.apply(ship("2"), progress=lambda line: messages.append((time.monotonic() - started, line)))
    end = time.monotonic() - started

    applied = next(at for at, line in messages if line == "Deployment/digits changed")
    ready = next(at for at, line in messages if "1 of 1 new pods available" in line)
    began = time.monotonic()
    again.status()
    status_took = time.monotonic() - began
    numbers = {
        "calls of the first deploy": calls,
        "calls of a change of code": len(again.cluster.calls),
        "seconds until the change is applied": round(applied, 2),
        "seconds after the last pod is available": round(end - ready, 2),
        "seconds of status": round(status_took, 2),
    }
    print(json.dumps(numbers))
    assert calls < 40
    assert len(again.cluster.calls) < 40
    assert applied + (end - ready) < 3
    assert status_took < 1


def test_a_canary_by_the_weights_of_a_gateway(target, ship):
    shipper = target(gateway={"name": "public", "hosts": ["digits.example"]})
    try:
        shipper.cluster.list_with_version(ROUTE)
    except DeployError:
        pytest.skip("the cluster has no gateway.networking.k8s.io/v1")

    def weights():
        rule = shipper.cluster.get_object(ROUTE, "digits")["spec"]["rules"][0]
        return {backend["name"]: backend.get("weight", 1) for backend in rule["backendRefs"]}

    shipper.apply(ship("1"))
    assert weights() == {"digits": 1}
    shipper.canary(ship("2"), 10)
    assert weights() == {"digits": 90, "digits-canary": 10}
    assert shipper.status().traffic == {1: 90, 2: 10}
    shipper.abort()
    assert weights() == {"digits": 1}
    assert shipper.cluster.get_object(SERVICE, "digits-canary") is None
    shipper.canary(ship("2"), 10)
    assert shipper.promote().state == "live"
    assert weights() == {"digits": 1}
    assert shipper.predict([{"x": 1}])["version"] == "2"
