"""The KServe target against a real controller, where the cluster has one; tests/unit/deploy/kserve runs on a double."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from mlapp.deploy import DeployError
from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE, ROUTE
from mlapp.deploy.cluster.transport import ApiRequest
from mlapp.deploy.kserve.installed_version import lacks_spec_canary
from tests.cluster.conftest import KUBECONFIG

PATIENCE = 5.0
"""Seconds that a Gateway of the cluster has to accept a route, before the test does it in its place."""


@pytest.fixture
def gateway(api, namespace) -> Iterator[None]:
    """Accepts the namespace's HTTPRoutes that no Gateway accepts, so that the test needs none.

    Without an accepted route, KServe never reports an InferenceService as ready.
    """
    path, done = f"/apis/{ROUTE.api_version}/namespaces/{namespace}/{ROUTE.plural}", threading.Event()

    def accept() -> None:
        while not done.wait(1):
            try:
                routes = api.transport.send_json(ApiRequest("GET", path, verb="list", object="routes"))["items"]
                for route in routes:
                    created_at = datetime.fromisoformat(route["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
                    is_old = (datetime.now(timezone.utc) - created_at).total_seconds() > PATIENCE
                    if is_old and not route.get("status", {}).get("parents"):
                        accept_route(route)
            except DeployError:  # the cluster has no HTTPRoute, or the route is gone
                continue

    def accept_route(route: dict[str, Any]) -> None:
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "accepted by a test",
            "lastTransitionTime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        parent = {
            "parentRef": route["spec"]["parentRefs"][0],
            "controllerName": "example.org/test",
            "conditions": [condition],
        }
        api.transport.send_json(
            ApiRequest(
                "PATCH",
                f"{path}/{route['metadata']['name']}/status",
                body={"status": {"parents": [parent]}},
                media_type="application/merge-patch+json",
                verb="patch",
                object="HTTPRoute",
            )
        )

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.fixture
def kserve(api, namespace, gateway) -> Callable[..., Any]:
    """The target in the test's namespace, which enforces Pod Security `restricted`."""
    from mlapp.config import Serve, Settings
    from mlapp.deploy import open_target

    try:
        api.require_kind(INFERENCE_SERVICE, "")
    except DeployError as error:
        pytest.skip(error.what)

    def make_target(**settings: Any) -> Any:
        resources = {"cpu": "20m", "memory": "64Mi"}
        raw = {"kubeconfig": KUBECONFIG, "namespace": namespace, "resources": resources, **settings}
        return open_target("kserve", "digits", Settings(targets={"kserve": raw}, serve=Serve(drain=5)))

    return make_target


def test_deploying_updating_and_going_back(kserve, ship):
    place = kserve()
    place.apply(ship("1"))
    spent = len(place.cluster.calls)
    place.apply(ship("2"))
    print({"calls of the first deploy": spent, "calls of its update": len(place.cluster.calls) - spent})
    assert max(spent, len(place.cluster.calls) - spent) <= 40

    assert place.predict([{"x": 1}])["predictions"]
    assert place.diff(ship("2")) == "", "what the webhooks add is no change"
    assert place.status().problems == ()
    assert place.rollback().note == "rollback to 1"
    assert "InferenceService/digits" in place.delete()
    assert place.cluster.get_object(INFERENCE_SERVICE, "digits") is None
    assert place.apply(ship("1")).state == "live", "its name is free at once"


def test_an_update_loses_no_request(kserve, ship, load):
    place = kserve(min_replicas=2)
    place.apply(ship("1"))
    running = load(service="digits-predictor")

    place.apply(ship("2"))
    place.rollback()

    outcome = running.stop()
    print(outcome)
    assert outcome["bad"] == {}
    assert set(outcome["versions"]) == {"1", "2"}


def test_a_canary_by_a_route_with_weights(kserve, ship):
    place = kserve()
    place.apply(ship("1"))
    if place.cluster.list_objects(ROUTE) == []:
        with pytest.raises(DeployError, match="needs the Gateway API"):
            place.canary(ship("2"), 20)
        pytest.skip("KServe makes no HTTPRoutes here")

    place.canary(ship("2"), 20)
    assert place.status().traffic == {1: 80, 2: 20}
    place.abort()
    place.canary(ship("2"), 20)
    assert place.promote().state == "live"
    assert place.predict([{"x": 1}])["version"] == "2"
    assert place.cluster.get_object(INFERENCE_SERVICE, "digits-canary") is None


def test_a_release_that_crashes_leaves_the_one_before_live(kserve, ship):
    place = kserve(rollout={"timeout": 90})
    place.apply(ship("1"))

    with pytest.raises(DeployError, match="Rolled back: release 1 is live"):
        place.apply(ship("2", "crash"))
    assert place.predict([{"x": 1}])["predictions"]


def test_every_document_is_accepted(kserve, ship):
    from dataclasses import replace

    bucket = replace(ship("1"), model_uri="s3://models/digits/a", manifest='{"version":1}')
    scaled = {"max_replicas": 3, "autoscaler": "external"}
    for settings in ({}, {"max_replicas": 3}, scaled, {"gpus": 1, "timeout": 30, "concurrency": 4}):
        place = kserve(**settings)
        documents = [*place.render(ship("1")), *place.render(bucket), *place.render_canary(ship("1"), 20)]
        if not lacks_spec_canary(place.cluster):
            documents += place.render_canary(bucket, 20)
        for document in documents:
            if document["kind"] != ROUTE.kind or place.cluster.list_objects(ROUTE):
                place.cluster.create_object(document, dry_run=True)
