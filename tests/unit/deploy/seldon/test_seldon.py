"""Seldon Core 2 with the project's own double of its operator: nothing of Core 2 itself is in this repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from api_double import ApiDouble, Key, kubeconfig

from mlapp.config import Settings
from mlapp.deploy import DeployError, Shipment, open_target
from mlapp.deploy.seldon import SeldonTarget
from mlapp.deploy.seldon.mesh import make_mesh_tensors
from mlapp.errors import ConfigError, UsageError
from tests.operations import CODE, operate_without_code

PLACE = "s3://models/digits/{version}"


class SeldonDouble(ApiDouble):
    """A cluster with Seldon Core 2: a mesh, and a Server. `broken` holds URIs that it cannot load."""

    def __init__(self) -> None:
        super().__init__()
        self.operators |= {"models", "servers", "experiments"}
        self.broken: set[str] = set()
        for plural in ("models", "servers", "experiments"):
            self.controllers[plural] = SeldonDouble.reconcile
        self.add("servers", {"kind": "Server", "metadata": {"name": "mlserver"}, "spec": {"serverConfig": "mlserver"}})
        ports = [{"name": "http", "port": 80, "targetPort": 9000}]
        mesh = {"selector": {"app": "seldon-envoy"}, "ports": ports}
        self.add("services", {"kind": "Service", "metadata": {"name": "seldon-mesh"}, "spec": mesh})
        for name, own in (("envoy", {"app": "seldon-envoy"}), ("mlserver-0", {"seldon-server-name": "mlserver"})):
            template = {"metadata": {"labels": own}, "spec": {"containers": [{"name": "c", "image": name}]}}
            self._make_pod("team-a", name, template, None)
        self.answers["envoy"] = (200, {"outputs": [{"name": "predict", "data": [7]}]})

    def reconcile(self, key: Key, item: dict[str, Any]) -> None:
        bad = item["spec"].get("storageUri") in self.broken
        ready = {"type": "Ready", "status": str(not bad)}
        if bad:
            ready.update(reason="ModelFailed", message="rclone: NoSuchKey")
        self.set_status(key, {"conditions": [ready], "availableReplicas": 0 if bad else 1})


@pytest.fixture
def api() -> Iterator[SeldonDouble]:
    double = SeldonDouble()
    yield double
    double.close()


@pytest.fixture
def target(api, tmp_path, monkeypatch) -> Callable[..., SeldonTarget]:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(api)))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name in ("SETTLED", "FAILURE_PATIENCE", "PAUSE"):
        monkeypatch.setattr(f"mlapp.deploy.seldon.readiness.{name}", 0.05)
    settings = {"storage_uri": PLACE}
    return lambda **more: open_target("seldon", "digits", Settings(targets={"seldon": {**settings, **more}}))


def ship(version: str = "1") -> Shipment:
    return Shipment("digits", "", version, "c0ffee", example=[{"pixel": 1}])


def test_a_model_is_loaded_from_the_export_and_answers_through_the_mesh(api, target):
    place, lines = target(), []
    place.apply(ship("1"), progress=lines.append)
    place.apply(ship("2"))

    assert api.get("models", "digits")["spec"]["storageUri"] == "s3://models/digits/2"
    assert "Model/digits answers: [7]" in lines
    assert place.predict([{"pixel": 1}])["predictions"] == [7]
    status = place.status()
    assert (status.release.number, status.ready, status.traffic, status.problems) == (2, 1, {2: 100}, ())
    assert next(line.text for line in place.logs(tail=1))
    assert place.rollback().note == "rollback to 1"
    assert place.delete()[0] == "Model/digits"


def test_a_canary_is_an_experiment_that_is_removed_after_the_decision(api, target):
    place = target()
    place.apply(ship("1"))

    place.canary(ship("2"), 25)
    spec = api.get("experiments", "digits-split")["spec"]
    assert spec == {
        "default": "digits",
        "candidates": [{"name": "digits", "weight": 75}, {"name": "digits-canary", "weight": 25}],
    }
    assert place.status().traffic == {1: 75, 2: 25}
    place.promote()
    assert (api.names("models"), api.names("experiments")) == (["digits"], [])
    assert api.get("models", "digits")["spec"]["storageUri"] == "s3://models/digits/2"

    place.canary(ship("3"), 25)
    place.abort()
    assert (api.names("models"), api.names("experiments")) == (["digits"], [])
    assert place.status().traffic == {2: 100}


class Counters(dict):
    """Metrics of the agent beside MLServer: each look counts 50 more requests to each model."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code
        self.requests = 0

    def get(self, name: str, default: str = "") -> str:
        if name != "mlserver-0":
            return default
        self.requests += 50
        lines = ["# TYPE seldon_model_infer counter", "# TYPE seldon_model_infer_seconds counter"]
        for model, code in (("digits", "200"), ("digits-canary", self.code), ("digits-canary", "200")):
            own = f'server="mlserver",server_replica="0",model="{model}",model_internal="{model}_1",code="{code}"'
            lines.append(f'seldon_model_infer_total{{{own},method_type="rest"}} {self.requests}')
            lines.append(f'seldon_model_infer_seconds_total{{{own},method_type="rest"}} {self.requests * 0.01}')
        return "\n".join(lines) + "\n"


@pytest.mark.parametrize("code", ["200", "Internal"])
def test_a_canary_is_judged_by_what_the_agents_count_of_its_model(api, target, monkeypatch, code):
    monkeypatch.setattr("mlapp.deploy.cluster.canary_analysis.PAUSE", 0.05)
    place, lines = target(), []
    place.apply(ship("1"))
    place.canary(ship("2"), 25)
    with pytest.raises(DeployError, match="too few for a decision"):
        place.judge(0.1)
    api.metrics = Counters(code)
    if code == "200":
        assert place.judge(0.2, progress=lines.append).state == "live"
        assert any("0.0% failed, 10.0 ms; live: " in line for line in lines)
        assert api.get("models", "digits")["spec"]["storageUri"] == "s3://models/digits/2"
    else:
        with pytest.raises(DeployError, match=r"aborted: 50.0% of its requests failed, compared with 0.0%"):
            place.judge(30)
        assert [release.state for release in place.releases()] == ["live", "aborted"]
    assert api.names("experiments") == []


def test_a_version_that_does_not_load_leaves_the_one_before_live(api, target):
    place = target()
    place.apply(ship("1"))
    api.broken.add("s3://models/digits/2")

    with pytest.raises(DeployError, match=r"Ready is False \(ModelFailed: rclone: NoSuchKey\)[\s\S]*release 1 is live"):
        place.apply(ship("2"))
    with pytest.raises(DeployError, match="The canary failed[\\s\\S]*release 1 is live"):
        place.canary(ship("2"), 10)

    assert api.names("experiments") == []


def test_a_server_is_made_where_an_image_is_given_and_asked_for_where_none_fits(api, target):
    api.delete(("servers", "team-a", "mlserver"), {})
    with pytest.raises(DeployError, match="There is no Server in .* that could run the model"):
        target().apply(ship())
    with pytest.raises(DeployError, match="There is no Server 'gpu'"):
        target(server="gpu").apply(ship())

    target(server_image="registry.example/digits-mlserver:1").apply(ship())

    assert api.names("servers") == ["digits"]
    assert api.get("servers", "digits")["spec"]["extraCapabilities"] == ["mlapp-digits"]
    assert api.get("models", "digits")["spec"]["requirements"] == ["mlapp-digits"]


def test_a_cluster_without_seldon_and_settings_without_a_place_are_refused(api, target):
    with pytest.raises(ConfigError, match=r"targets.seldon.storage_uri is missing"):
        target(storage_uri=None).check()
    with pytest.raises(UsageError, match="digits has no version that targets.seldon.storage_uri could name"):
        target().apply(Shipment("digits", ""))
    api.operators.clear()
    with pytest.raises(DeployError, match="does not know Model: Seldon Core 2 is not installed"):
        target().apply(ship())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rollout": {"leave": 9}}, "'targets.seldon.rollout.leave' is not a setting"),
        ({"rollout": {"startup": 9}}, "'targets.seldon.rollout.startup' is not a setting"),
        ({"server_config": "mine"}, "mlapp creates no Server without `server_image`"),
    ],
)
def test_a_setting_without_an_effect_is_refused(target, settings, words):
    with pytest.raises(ConfigError, match=words):
        target(**settings).render(ship())


def test_every_operation_works_without_the_code(mlapp, project, target):
    place = target()
    place.apply(ship("1"))
    place.apply(ship("2"))
    place.canary(ship("1"), 20)
    settings = f"name: digits\ntargets: {{seldon: {{storage_uri: '{PLACE}'}}}}\n"

    operate_without_code(mlapp, project(CODE, mlapp__yaml=settings), "seldon", lambda: place.canary(ship("1"), 20))


@pytest.mark.parametrize(
    ("inputs", "tensors"),
    [
        ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], [("a", "INT64", [1, 2]), ("b", "BYTES", ["x", "y"])]),
        ({"a": [1.5, 2], "b": [True, False]}, [("a", "FP64", [1.5, 2]), ("b", "BOOL", [True, False])]),
    ],
)
def test_records_and_columns_become_tensors(inputs, tensors):
    found = make_mesh_tensors(inputs)["inputs"]

    assert [(each["name"], each["datatype"], each["data"]) for each in found] == tensors
    with pytest.raises(UsageError, match="only records or named columns"):
        make_mesh_tensors([[1, 2]])
