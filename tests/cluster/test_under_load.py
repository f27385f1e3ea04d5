"""No request is lost during deploys: 300 a second, half of them on persistent connections."""

from __future__ import annotations

import time

import pytest

from mlapp.deploy import DeployError
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT, POD
from mlapp.deploy.cluster.pods import is_pod_ready
from mlapp.deploy.cluster.transport import ApiRequest


def assert_nothing_lost(outcome, rate=300):
    print(outcome)
    assert outcome["bad"] == {}
    assert outcome["good"] >= 0.5 * rate * outcome["seconds"], "a busy machine sends fewer, but not none for long"


def test_a_rolling_update_and_a_rollback(target, ship, load):
    shipper = target(replicas=2)
    shipper.apply(ship("1"))
    running = load()

    shipper.apply(ship("2"))
    shipper.rollback()

    outcome = running.stop()
    assert_nothing_lost(outcome)
    assert set(outcome["versions"]) == {"1", "2"}


def test_a_canary_that_is_promoted(target, ship, load):
    shipper = target(replicas=2)
    shipper.apply(ship("1"))
    running = load()

    trial = shipper.canary(ship("2"), 30)
    status = shipper.status()
    assert (trial.state, status.traffic) == ("canary", {1: 67, 2: 33})
    assert {replica.release for replica in status.replicas} == {1, 2}
    with pytest.raises(DeployError, match="is still a canary"):
        shipper.apply(ship("1"))
    live = shipper.promote()

    assert_nothing_lost(running.stop())
    assert live.state == "live"
    assert shipper.cluster.get_object(DEPLOYMENT, "digits-canary") is None
    assert shipper.predict([1])["version"] == "2"


def test_a_canary_that_is_judged_by_what_it_answers(target, ship, load):
    shipper = target(replicas=2, rollout={"check": False})
    shipper.apply(ship("1"))
    running = load()
    messages = []

    shipper.canary(ship("2", "sometimes"), 30)
    with pytest.raises(DeployError, match=r"was aborted: \d+\.\d% of its requests failed, compared with 0\.0%"):
        shipper.judge(60, progress=messages.append)

    running.stop()
    print(messages)
    assert shipper.cluster.get_object(DEPLOYMENT, "digits-canary") is None
    assert [(release.number, release.state) for release in shipper.releases()] == [(1, "live"), (2, "aborted")]


def test_a_canary_that_is_as_good_is_promoted_by_itself(target, ship, load):
    shipper = target(replicas=1, canary={"latency_ratio": 10})
    shipper.apply(ship("1"))
    running = load(50)

    shipper.canary(ship("2"), 50)
    release = shipper.judge(10)

    assert (release.number, release.state) == (2, "live")
    assert running.stop()["bad"] == {}


def test_a_drain_evicts_one_pod_after_the_other(target, ship, load, namespace):
    """A drain is this: the node takes no more pods, and each is evicted as soon as the budget allows it.

    On a cluster of one node the replacements could go nowhere, so the node is not cordoned here.
    """
    shipper = target(replicas=2)
    shipper.apply(ship("1"))
    cluster = shipper.cluster
    chosen = "app.kubernetes.io/instance=digits"
    running = load()

    for pod in [pod["metadata"]["name"] for pod in cluster.list_objects(POD, chosen)]:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        while True:
            try:
                cluster.transport.send_json(
                    ApiRequest("POST", path, body=eviction, verb="create", object="eviction", is_idempotent=False)
                )
                break
            except DeployError:  # 429: the budget says not now
                time.sleep(0.5)
    while sum(is_pod_ready(pod) for pod in cluster.list_objects(POD, chosen)) < 2:
        time.sleep(0.5)

    assert_nothing_lost(running.stop())
    assert any(call.status == 429 for call in cluster.calls), "the budget refused no eviction"
