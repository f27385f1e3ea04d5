"""The KServe target against a real controller, where the cluster has one; tests/unit/deploy/kserve runs on a double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.conftest import KUBECONFIG


@pytest.fixture
def kserve(api, namespace) -> Callable[..., Any]:
    """The target in the test's namespace, which enforces Pod Security `restricted`."""
    from mlapp.config import Serve, Settings
    from mlapp.deploy import DeployError, open_target
    from mlapp.deploy.cluster.object_kinds import INFERENCE_SERVICE

    try:
        api.require_kind(INFERENCE_SERVICE, "")
    except DeployError as error:
        pytest.skip(error.what)

    def opened(**settings: Any) -> Any:
        resources = {"cpu": "20m", "cpu_limit": None, "memory": "64Mi"}
        raw = {"kubeconfig": KUBECONFIG, "namespace": namespace, "resources": resources, **settings}
        return open_target("kserve", "digits", Settings(targets={"kserve": raw}, serve=Serve(drain=5)))

    return opened


def test_deploying_updating_and_going_back(kserve, ship):
    place = kserve()
    place.apply(ship("1"))
    place.apply(ship("2"))

    assert place.predict([{"x": 1}])["predictions"]
    assert place.status().problems == ()
    assert place.rollback().note == "rollback to 1"
    assert "InferenceService/digits" in place.delete()


def test_a_release_that_crashes_leaves_the_one_before_live(kserve, ship):
    from mlapp.deploy import DeployError

    place = kserve(rollout={"timeout": 90})
    place.apply(ship("1"))

    with pytest.raises(DeployError, match="Went back: release 1 is live"):
        place.apply(ship("2", "crash"))
    assert place.predict([{"x": 1}])["predictions"]


def test_every_document_is_accepted(kserve, ship):
    from dataclasses import replace

    bucket = replace(ship("1"), model_uri="s3://models/digits/a", manifest='{"version":1}')
    for settings in ({}, {"max_replicas": 3}, {"gpus": 1, "timeout": 30, "concurrency": 4}):
        place = kserve(**settings)
        for shipment in (ship("1"), bucket):
            for document in place.render(shipment):
                place.cluster.create_object(document, dry_run=True)
