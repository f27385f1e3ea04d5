"""Operating a deployed app: status, logs, recovery after an interruption, and the Role."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time

import pytest
from api_double import TWO

from mlapp.deploy import DeployError
from mlapp.deploy.cluster import logs as pod_logs
from mlapp.deploy.cluster.pods import find_pod_trouble
from mlapp.deploy.cluster.rollout import RolloutWait


def interrupted(monkeypatch, deploy):
    with monkeypatch.context() as patch:
        patch.setattr(RolloutWait, "wait_until_complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(DeployError, match="or run `mlapp rollback`|is applied") as caught:
            deploy()
    return caught.value


def test_rolling_back_after_an_interruption_goes_to_the_release_before_it(api, target, ship, monkeypatch):
    target().apply(ship())
    interrupted(monkeypatch, lambda: target().apply(ship(TWO, "2")))

    release = target().rollback()

    assert (release.number, release.note, release.shipment.model_version) == (3, "rollback to 1", "1")
    assert [(each.number, each.state) for each in target().releases()] == [
        (1, "superseded"),
        (2, "failed"),
        (3, "live"),
    ]


def test_a_server_that_goes_away_during_a_rollout_leaves_the_release_open(api, target, ship, monkeypatch):
    target().apply(ship())
    monkeypatch.setattr("mlapp.deploy.cluster.transport.PATIENCE", 0.3)

    def away(verb, plural, document):
        if verb == "watch":
            api.away = 10**6

    api.refuse = away
    with pytest.raises(DeployError) as caught:
        target().apply(ship(TWO, "2"))
    api.away, api.refuse = 0, lambda verb, plural, document: None

    assert (
        "Release 2 is applied; the cluster continues the rollout, but mlapp no longer watches it." in caught.value.what
    )
    assert [(each.number, each.state) for each in target().releases()] == [(1, "live"), (2, "pending")]


def test_a_secret_that_an_operator_makes_a_little_later_is_waited_for(api, target, ship):
    target().apply(ship())
    api.trouble[TWO] = "no secret"
    messages = []

    def heal_when_told(line: str) -> None:
        if 'cannot start: secret "digits" not found' in line:
            messages.append(line)
            api.heal(TWO)

    assert target(env={"A": "1"}).apply(ship(TWO), progress=heal_when_told).number == 2

    assert messages


def test_a_secret_that_never_comes_is_named(api, target, ship, monkeypatch):
    monkeypatch.setattr("mlapp.deploy.cluster.pods.SECRET_PATIENCE", 0.5)
    target().apply(ship())
    api.trouble[TWO] = "no secret"

    with pytest.raises(DeployError, match='cannot start: secret "digits" not found'):
        target(env={"A": "1"}).apply(ship(TWO))


def test_a_paused_deployment_is_refused_before_anything_is_written(api, target, ship):
    target().apply(ship())
    api.edit("deployments", "digits", "kubectl-rollout", lambda item: item["spec"].update(paused=True))

    with pytest.raises(DeployError, match="Deployment/digits is paused"):
        target().apply(ship(TWO))

    assert len(target().releases()) == 1


def test_a_pod_that_comes_later_joins_in_while_lines_never_end(api, target, ship, monkeypatch):
    def endless(cluster, pod, query):
        for number in itertools.count():
            yield f"{number:09}", pod_logs.LogLine(pod, "line")
            time.sleep(0.01)

    monkeypatch.setattr(pod_logs, "_read_pod_log_lines", endless)
    monkeypatch.setattr(pod_logs, "REFRESH_INTERVAL", 0.1)
    target().apply(ship())
    lines = target().logs(follow=True)
    first = next(lines).replica

    target(replicas=2).apply(ship())

    assert any(line.replica != first for line in itertools.islice(lines, 2000))


def test_a_watch_whose_version_is_too_old_starts_again_from_a_list(api, target, ship):
    target().apply(ship())
    api.expired = {"deployments", "pods", "events"}

    assert target().apply(ship(TWO, "2")).number == 2

    assert not api.expired


def test_no_watch_stays_open_after_a_deploy(api, target, ship):
    watched = []
    api.refuse = lambda verb, plural, document: watched.append(plural) if verb == "watch" else None
    target(seconds=300).apply(ship())  # the API server would end the watches after 300 s

    end = time.monotonic() + 60
    while api.watches and time.monotonic() < end:
        time.sleep(0.05)

    assert {"deployments", "pods", "events"} <= set(watched)
    assert not api.watches


def test_lines_that_were_shown_are_not_shown_again_when_a_stream_is_cut_off(api, target, ship, monkeypatch):
    monkeypatch.setattr(pod_logs, "REFRESH_INTERVAL", 0.1)
    api.logs = "2026-01-01T00:00:01.000000000Z one\n"
    target().apply(ship())
    lines = target().logs(follow=True)
    assert next(lines).text == "one"

    api.logs += "2026-01-01T00:00:02.000000000Z two\n"

    assert next(lines).text == "two"


def test_events_of_an_app_whose_name_begins_the_same_are_not_shown(api, target, ship):
    target().apply(ship())
    for name in ("digits", "digits-66d5b7bcc6-x2k9q", "digits-canary-66d5b7bcc6-x2k9q", "digits-v2-66d5b7bcc6-x2k9q"):
        subject = {"kind": "Pod", "name": name}
        api.add("events", {"metadata": {"name": f"{name}.1"}, "involvedObject": subject, "message": name})

    shown = {event.message for event in target().status().events}

    assert shown == {"digits", "digits-66d5b7bcc6-x2k9q", "digits-canary-66d5b7bcc6-x2k9q"}


def test_the_address_of_a_load_balancer_is_reported_once_there_is_one(api, target, ship):
    shipper = target(service={"type": "LoadBalancer", "port": 8080})
    messages = []

    shipper.apply(ship(), progress=messages.append)
    assert "the Service has no external address yet: `mlapp status` shows it as soon as it has one" in messages

    balanced = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    api.edit("services", "digits", "cloud", lambda item: item.update(status=balanced))
    assert shipper.status().url == "http://203.0.113.7:8080"
    assert shipper.apply(ship(TWO)).url == "http://203.0.113.7:8080"


def test_the_diff_of_an_app_whose_namespace_is_still_to_be_made_shows_all_of_it(api, target, ship):
    text = target(namespace={"name": "team-b", "create": True}).diff(ship())

    assert "+++ Namespace/team-b (to be)" in text
    assert "+++ Deployment/digits (to be)" in text


def test_the_diff_can_show_what_taking_over_would_change(api, target, ship):
    target().apply(ship())
    api.edit("deployments", "digits", "kubectl-scale", lambda item: item["spec"].update(replicas=5))

    with pytest.raises(DeployError, match="owned by kubectl-scale"):
        target().diff(ship())
    assert "-  replicas: 5\n+  replicas: 1" in target().diff(ship(), take_over=True)


def test_the_role_is_for_the_namespace_that_the_kubeconfig_names(target, ship):
    documents = target().rbac(ship())
    binding = next(document for document in documents if document["kind"] == "RoleBinding")

    assert {document["metadata"]["namespace"] for document in documents} == {"team-a"}
    assert binding["subjects"][0]["namespace"] == "team-a"


def test_the_right_to_make_a_namespace_is_one_for_each_namespace(target, ship):
    roles = [
        document["metadata"]["name"]
        for name in ("team-a", "team-b")
        for document in target(namespace={"name": name, "create": True}).rbac(ship())
        if document["kind"] == "ClusterRoleBinding"
    ]

    assert roles == ["team-a-digits-deployer", "team-b-digits-deployer"]


def test_the_right_to_make_a_namespace_changes_no_other_one(target, ship):
    documents = target(namespace={"name": "team-a", "create": True}).rbac(ship())
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")

    named = [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"]]
    assert named == [(None, ["create"]), (["team-a"], ["get", "patch"])]


def test_a_canary_tells_how_much_it_really_gets(api, target, ship):
    target(replicas=2).apply(ship())
    messages = []

    release = target(replicas=2).canary(ship(TWO, "2"), 10, progress=messages.append)

    assert any(line.startswith("the canary has 1 of 3 pods and gets about 33 %") for line in messages)
    assert release.note == "began as a canary at 33 %"


def test_a_container_that_the_runtime_cannot_start_is_reported_in_the_runtimes_words():
    ended = {"exitCode": 128, "reason": "StartError", "message": 'exec: "python": executable file not found in $PATH'}
    container = {"name": "server", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "metadata": {"name": "digits-1"},
        "status": {"containerStatuses": [{**container, "lastState": {"terminated": ended}}]},
    }

    assert find_pod_trouble(pod).text == f"pod digits-1 cannot start (StartError): {ended['message']}"


@pytest.mark.needs("kubernetes")
def test_a_command_does_not_wait_for_the_validator_of_the_client_library(target):
    code = """
import sys
from mlapp.deploy.k8s import KubernetesSettings
from mlapp.deploy.cluster.connection import connect_cluster
connect_cluster(KubernetesSettings(), "targets.k8s")
print("kubernetes_validate" in sys.modules)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert output.stdout == "False\n"
