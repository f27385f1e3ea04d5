"""Repeated deploys: what is written, kept and removed, and rollbacks."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from api_double import ONE, TWO

from mlapp.deploy import DeployError


def test_the_first_deploy_makes_every_object_and_records_a_release(api, target, ship):
    messages = []

    release = target().apply(ship(), progress=messages.append)

    assert (release.number, release.state, release.by) == (1, "live", "ada")
    assert release.url == "http://digits.team-a.svc"
    assert api.names("deployments") == ["digits"]
    assert api.names("services") == ["digits"]
    assert api.names("networkpolicies") == ["digits"]
    assert api.get("configmaps", "digits-release-1")["metadata"]["labels"]["mlapp/state"] == "live"
    assert "answers: [7]" in "\n".join(messages)
    assert api.names("leases") == []


def test_a_deploy_takes_fewer_than_forty_calls(api, target, ship):
    target(replicas=2, autoscaling={}).apply(ship())

    calls = [f"{method} {path}" for method, path in api.requests]
    assert len(calls) < 40, "\n".join(calls)


def test_a_change_of_code_writes_the_deployment_and_nothing_else(api, target, ship):
    target().apply(ship())
    api.requests.clear()
    messages = []

    release = target().apply(ship(TWO), progress=messages.append)

    assert release.number == 2
    assert "release 2: change Deployment/digits" in messages
    assert [record.state for record in target().releases()] == ["superseded", "live"]
    assert len(api.requests) < 40


def test_the_same_again_changes_nothing_and_makes_no_release(api, target, ship):
    target().apply(ship())
    before = dict(api.objects)
    messages = []

    release = target().apply(ship(), progress=messages.append)

    assert release.number == 1
    assert "release 1 is live already: nothing to change" in messages
    assert {key: item for key, item in api.objects.items() if key[0] != "leases"} == before


def test_what_others_set_is_left_alone(api, target, ship):
    target().apply(ship())
    api.edit("deployments", "digits", "mesh", lambda item: item["metadata"].update(annotations={"mesh/on": "yes"}))

    target().apply(ship(TWO))

    assert api.get("deployments", "digits")["metadata"]["annotations"]["mesh/on"] == "yes"


def test_a_conflict_names_the_owner_and_changes_nothing(api, target, ship):
    target().apply(ship())
    api.edit("deployments", "digits", "kubectl-scale", lambda item: item["spec"].update(replicas=5))

    with pytest.raises(DeployError) as caught:
        target().apply(ship(TWO))

    assert "Deployment/digits .spec.replicas is owned by kubectl-scale" in caught.value.what
    assert "--force-conflicts" in caught.value.todo
    assert api.get("deployments", "digits")["spec"]["template"]["spec"]["containers"][0]["image"] == ONE
    assert api.names("configmaps") == [name for name in api.names("configmaps") if "release-2" not in name]


def test_a_conflict_can_be_taken(api, target, ship):
    target().apply(ship())
    api.edit("deployments", "digits", "kubectl-scale", lambda item: item["spec"].update(replicas=5))

    target().apply(ship(TWO), take_over=True)

    assert api.get("deployments", "digits")["spec"]["replicas"] == 1


def test_turning_to_an_autoscaler_keeps_the_replicas(api, target, ship):
    target(replicas=4).apply(ship())

    target(autoscaling={"min": 2}).apply(ship())

    deployment = api.get("deployments", "digits")
    assert deployment["spec"]["replicas"] == 4
    owners = {
        entry["manager"]
        for entry in deployment["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"]["f:spec"]
    }
    assert owners == {"mlapp-handover"}


def test_turning_back_from_an_autoscaler_needs_no_force(api, target, ship):
    target(autoscaling={"min": 2}).apply(ship())
    api.edit("deployments", "digits", "kube-controller-manager", lambda item: item["spec"].update(replicas=7))

    target(replicas=3).apply(ship())

    assert api.get("deployments", "digits")["spec"]["replicas"] == 3
    assert api.names("horizontalpodautoscalers") == []


def test_what_is_no_longer_rendered_goes(api, target, ship):
    target(replicas=2, ingress={"host": "digits.example"}).apply(ship())
    assert api.names("ingresses") == ["digits"]
    assert api.names("poddisruptionbudgets") == ["digits"]

    target(replicas=1).apply(ship())

    assert api.names("ingresses") == []
    assert api.names("poddisruptionbudgets") == []


def test_an_object_of_others_stays_even_with_our_labels(api, target, ship):
    target().apply(ship())
    labels = dict(api.get("services", "digits")["metadata"]["labels"])
    api.add("configmaps", {"metadata": {"name": "notes", "labels": labels}, "data": {}})
    api.add("secrets", {"metadata": {"name": "keys", "labels": labels}})

    target(env={"A": "1"}).apply(ship(TWO))

    assert "notes" in api.names("configmaps")
    assert "keys" in api.names("secrets")


def test_claims_are_never_removed(api, target, ship):
    target(volumes={"data": {"path": "/data"}}).apply(ship())
    messages = []

    target().apply(ship())
    target().delete(progress=messages.append)

    assert api.names("persistentvolumeclaims") == ["digits-data"]


def test_an_object_of_the_same_name_that_is_not_ours_is_not_touched(api, target, ship):
    api.add("services", {"metadata": {"name": "digits"}, "spec": {"selector": {"app": "other"}}}, manager="helm")

    with pytest.raises(DeployError, match=r"Service/digits already exists, and mlapp did not create it \(helm did\)"):
        target().apply(ship())

    assert api.names("deployments") == []


def test_changed_variables_roll_the_pods_and_the_old_config_goes(api, target, ship):
    target(env={"COLOR": "red"}).apply(ship())
    before = api.names("pods")

    target(env={"COLOR": "blue"}).apply(ship())

    assert not set(before) & set(api.names("pods"))
    configs = [name for name in api.names("configmaps") if "config" in name]
    assert [api.get("configmaps", name)["data"]["COLOR"] for name in configs] == ["blue"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("no image", "cannot pull its image"),
        ("crash", "last words"),
        ("quota", "exceeds the namespace's quota 'compute'"),
        ("unschedulable", "no node can take pod"),
        ("probe", "Startup probe failed: HTTP probe failed with statuscode: 500"),
    ],
)
def test_a_release_that_does_not_become_ready_gives_the_reason_and_is_taken_back(api, target, ship, trouble, message):
    target().apply(ship())
    api.trouble[TWO] = trouble

    messages = []

    with pytest.raises(DeployError) as caught:
        target(seconds=2, env={"A": "1"}).apply(ship(TWO), progress=messages.append)

    assert message in caught.value.what
    assert not [line for line in messages if line.startswith("pod ") and "Startup probe" in line], (
        "no news while it loads"
    )
    assert "Rolled back: release 1 is live." in caught.value.what
    assert api.get("deployments", "digits")["spec"]["template"]["spec"]["containers"][0]["image"] == ONE
    assert [(release.number, release.state) for release in target().releases()] == [(1, "live"), (2, "failed")]


def test_a_release_that_answers_wrongly_is_taken_back(api, target, ship):
    target().apply(ship())
    api.answers[TWO] = (500, {"title": "Internal Server Error", "detail": "the predictor raised"})

    with pytest.raises(DeployError) as caught:
        target().apply(ship(TWO))

    assert "answered 500 to a prediction: the predictor raised" in caught.value.what
    assert "Rolled back: release 1 is live." in caught.value.what


def test_a_server_that_wants_a_key_is_taken_as_it_is(api, target, ship):
    api.answers[ONE] = (401, {"detail": "no key"})
    messages = []

    target().apply(ship(), progress=messages.append)

    assert "requires an API key" in "\n".join(messages)


def test_the_first_release_that_fails_is_left_to_be_looked_at(api, target, ship):
    api.trouble[ONE] = "crash"

    with pytest.raises(DeployError) as caught:
        target().apply(ship())

    assert "There is no earlier release" in caught.value.todo
    status = target().status()
    assert status.release is None
    assert any("crash" in problem for problem in status.problems)


def test_rolling_back_brings_image_model_and_configuration_together(api, target, ship):
    target(env={"COLOR": "red"}).apply(ship(ONE, "1"))
    target(env={"COLOR": "blue"}, replicas=2).apply(ship(TWO, "2"))

    release = target(env={"COLOR": "green"}).rollback()

    assert (release.number, release.note, release.shipment.model_version) == (3, "rollback to 1", "1")
    deployment = api.get("deployments", "digits")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == ONE
    configs = [name for name in api.names("configmaps") if "config" in name]
    assert [api.get("configmaps", name)["data"]["COLOR"] for name in configs] == ["red"]


def test_two_rollbacks_go_back_two_releases(api, target, ship):
    for number in "123":
        target().apply(ship("registry.example/digits@sha256:" + number * 64, number))

    target().rollback()
    again = target().rollback()

    assert again.note == "rollback to 1"
    with pytest.raises(DeployError, match="no earlier release"):
        target().rollback()


def test_only_so_many_releases_are_kept(api, target, ship):
    for number in "12345":
        target(rollout={"history": 3}).apply(ship("registry.example/digits@sha256:" + number * 64, number))

    assert [release.number for release in target().releases()] == [3, 4, 5]


def test_releases_that_failed_do_not_take_away_the_way_back(api, target, ship):
    few = {"rollout": {"history": 2}}
    target(**few).apply(ship())
    target(**few).apply(ship(TWO))
    for number in "345":
        image = "registry.example/digits@sha256:" + number * 64
        api.trouble[image] = "crash"
        with pytest.raises(DeployError):
            target(**few).apply(ship(image))
    target(**few).apply(ship("registry.example/digits@sha256:" + "6" * 64))

    assert [(each.number, each.state) for each in target().releases()] == [
        (2, "superseded"),
        (5, "failed"),
        (6, "live"),
    ]


@pytest.mark.needs("kubernetes")
def test_a_second_deploy_at_once_is_refused(api, target, ship):
    api.trouble[ONE] = "unschedulable"

    def deploy():
        with suppress(DeployError):
            target(seconds=2).apply(ship())

    first = threading.Thread(target=deploy)
    first.start()
    while not api.names("leases"):
        pass

    with pytest.raises(DeployError, match="is being deployed by"):
        target().apply(ship(TWO))
    first.join()


def test_a_wrong_clock_here_takes_no_lock_from_another_deploy(api, target, ship):
    api.ahead = -120
    now = datetime.now(timezone.utc) - timedelta(seconds=120)
    spec = {
        "holderIdentity": "bob@ci-1",
        "leaseDurationSeconds": 30,
        "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    api.add("leases", {"metadata": {"name": "digits-deploy"}, "spec": spec})

    with pytest.raises(DeployError, match="is being deployed by bob@ci"):
        target().apply(ship())


def test_an_interrupted_deploy_is_continued(api, target, ship, monkeypatch):
    from mlapp.deploy.cluster.rollout import RolloutWait

    wait = RolloutWait.wait_until_complete
    monkeypatch.setattr(RolloutWait, "wait_until_complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(DeployError, match="Interrupted: release 1 is applied"):
        target().apply(ship())
    assert "interrupted" in target().status().problems[0]

    monkeypatch.setattr(RolloutWait, "wait_until_complete", wait)
    release = target().apply(ship())

    assert (release.number, release.state) == (1, "live")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_all_objects_are_written(api, target, ship, number):
    written = []

    def interrupt_first_write(verb, plural, document):
        if verb == "patch" and not document["dryRun"]:
            if not written:
                os.kill(os.getpid(), number)
            written.append(plural)

    handler = signal.getsignal(number)
    api.refuse = interrupt_first_write
    with pytest.raises(DeployError, match="Interrupted: release 1 is applied"):
        target().apply(ship())

    assert {"services", "deployments"} <= set(written)
    assert signal.getsignal(number) is handler


def test_a_server_that_is_away_for_a_moment_is_waited_for(api, target, ship):
    def away(verb, plural, document):
        if (verb, plural) == ("patch", "deployments") and not document["dryRun"] and not hiccups:
            hiccups.append(1)
            api.away = 2

    hiccups = []
    api.refuse = away

    assert target().apply(ship()).state == "live"
    assert hiccups


def test_delete_removes_all_of_ours(api, target, ship):
    target(replicas=2).apply(ship())

    removed = target().delete()

    assert "Deployment/digits" in removed
    assert "release 1" in removed
    left = {key for key in api.objects if key[1] == "team-a" and key[0] != "pods"}
    assert left == set()
    assert target().status().release is None
