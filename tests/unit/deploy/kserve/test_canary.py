"""Canaries on KServe: each mode splits the traffic in its own way, or it is said before anything is written."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from api_double import ONE, TWO

from mlapp.deploy import DeployError

BUCKET = {"model_uri": "s3://models/digits/a", "manifest": '{"version":1}'}
OTHER = {"model_uri": "s3://models/digits/b", "manifest": '{"version":2}'}


def weights(route) -> dict[str, int]:
    (rule,) = route["spec"]["rules"]
    return {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}


def test_standard_mode_splits_between_two_services_by_a_route(api, target, ship):
    place = target()
    place.apply(ship(ONE))

    release = place.canary(ship(TWO, "2"), 20)

    assert (release.state, release.note) == ("canary", "began as a canary at 20 %")
    assert api.names("inferenceservices") == ["digits", "digits-canary"]
    route = api.get("httproutes", "digits-split")
    assert weights(route) == {"digits-predictor": 80, "digits-canary-predictor": 20}
    assert route["spec"]["hostnames"] == ["digits-team-a.models.example"], "KServe's own host"
    assert place.status().traffic == {1: 80, 2: 20}

    assert place.promote().state == "live"
    assert api.names("inferenceservices") == ["digits"]
    assert "digits-split" not in api.names("httproutes")
    assert api.get("inferenceservices", "digits")["spec"]["predictor"]["containers"][0]["image"] == TWO


def test_the_split_keeps_kserve_s_timeouts_filters_and_the_port_of_grpc(api, target, ship):
    place = target(timeout=7)
    place.serve = msgspec.structs.replace(place.serve, grpc_port=9000)
    place.apply(ship(ONE))

    place.canary(ship(TWO, "2"), 20)

    own, split = (api.get("httproutes", name)["spec"]["rules"] for name in ("digits", "digits-split"))
    for theirs, ours in zip(own, split, strict=True):
        assert (ours["timeouts"], ours["filters"]) == (theirs["timeouts"], theirs["filters"])
        assert {backend["port"] for backend in ours["backendRefs"]} == {theirs["backendRefs"][0]["port"]}
        forms = [match["path"] for match in ours["matches"]]
        assert len(forms[0]["value"]) > len(theirs["matches"][0]["path"]["value"]), "longer ones win"
        assert forms[1]["type"] == "PathPrefix"
    assert [rule["matches"][1]["path"]["value"] for rule in split] == ["/inference.GRPCInferenceService/", "/"]
    assert all("headers" in match for match in split[0]["matches"])


def test_an_aborted_canary_leaves_no_trace(api, target, ship):
    place = target()
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)

    assert place.abort().state == "aborted"

    assert (api.names("inferenceservices"), api.names("httproutes")) == (["digits"], ["digits"])
    assert place.status().traffic == {1: 100}


def test_a_canary_that_does_not_become_ready_is_removed(api, target, ship):
    place = target()
    place.apply(ship(ONE))
    api.trouble[TWO] = "crash"

    with pytest.raises(DeployError, match="It was removed; release 1 is live"):
        place.canary(ship(TWO, "2"), 20)

    assert api.names("inferenceservices") == ["digits"]


def test_without_a_gateway_nothing_is_written(api, target, ship):
    api.gateway = False
    place = target()
    place.apply(ship(ONE))
    seen = api.seen

    with pytest.raises(DeployError, match="needs the Gateway API, and KServe has created no HTTPRoute for digits"):
        place.canary(ship(TWO, "2"), 20)

    assert [release.number for release in place.releases()] == [1]
    written = {entry[2][0] for entry in api._history if entry[0] > seen}
    assert written <= {"leases"}


@pytest.mark.parametrize("split", ["by KServe", "by ours"])
def test_a_model_in_a_bucket_is_tried_by_spec_canary(api, target, ship, split):
    api.weights = split == "by KServe"
    place = target(min_replicas=2)
    place.apply(ship(ONE, **BUCKET))

    place.canary(ship(ONE, "2", **OTHER), 30)

    service = api.get("inferenceservices", "digits")
    (trial,) = service["spec"]["canary"]
    assert api.get("deployments", "digits-predictor")["spec"]["replicas"] == 2, "the live release keeps its pods"
    assert (trial["trafficPercent"], trial["predictor"]["model"]["storageUri"]) == (30, "s3://models/digits/b")
    assert service["spec"]["predictor"]["model"]["storageUri"] == "s3://models/digits/a", "the live one stays"
    name = "digits" if api.weights else "digits-split"
    assert weights(api.get("httproutes", name)) == {"digits-predictor": 70, "digits-canary-predictor": 30}
    assert ("digits-split" in api.names("httproutes")) is not api.weights

    place.promote()
    spec = api.get("inferenceservices", "digits")["spec"]
    assert "canary" not in spec
    assert spec["predictor"]["model"]["storageUri"] == "s3://models/digits/b"
    assert api.names("deployments") == ["digits-predictor"]
    assert "digits-split" not in api.names("httproutes")


@pytest.mark.parametrize("has_schema", [True, False])
def test_a_kserve_without_spec_canary_gets_a_second_service(api, target, ship, has_schema):
    api.minor, api.has_schema, api.readable = 19, has_schema, not has_schema
    place = target()
    place.apply(ship(ONE, **BUCKET))

    place.canary(ship(ONE, "2", **OTHER), 30)

    assert api.names("inferenceservices") == ["digits", "digits-canary"]
    place.abort()
    assert api.names("inferenceservices") == ["digits"]
    assert len(api.names("servingruntimes")) == 1


def test_knative_mode_splits_between_two_revisions(api, target, ship):
    place = target(mode="knative")
    place.apply(ship(ONE))

    place.canary(ship(TWO, "2"), 20)
    assert place.status().traffic == {1: 80, 2: 20}
    assert api.get("inferenceservices", "digits")["spec"]["predictor"]["canaryTrafficPercent"] == 20

    place.promote()
    assert api.names("revisions") == ["digits-predictor-00001", "digits-predictor-00002"], "no new pods"
    assert "canaryTrafficPercent" not in api.get("inferenceservices", "digits")["spec"]["predictor"]
    assert place.status().traffic == {2: 100}


def test_aborting_in_knative_mode_never_sends_all_traffic_to_the_canary(api, target, ship):
    place = target(mode="knative")
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)
    seen = api.seen

    place.abort()

    shares = []
    for version, _, key, item in api._history:
        traffic = item.get("status", {}).get("components", {}).get("predictor", {}).get("traffic")
        if version > seen and key[0] == "inferenceservices" and traffic:
            shares += [entry["percent"] for entry in traffic if entry["revisionName"].endswith("00002")]
    assert max(shares, default=0) <= 20
    service = api.get("inferenceservices", "digits")
    assert service["spec"]["predictor"]["containers"][0]["image"] == ONE
    assert service["status"]["components"]["predictor"]["traffic"][0]["revisionName"].endswith("00003")


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_a_dry_run_prints_the_canary_without_a_cluster(mlapp, project, monkeypatch, tmp_path, mode):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    project(
        "from mlapp import App\n\napp = App('digits', target='target')\n",
        mlapp__yaml=f"name: digits\ntargets: {{kserve: {{mode: {mode}, namespace: team-a}}}}\n",
    )

    ran = mlapp("deploy", "--dry-run", "--canary", "10", "--image", TWO)

    assert ran.code == 0, ran.err
    documents = list(yaml.safe_load_all(ran.out))
    if mode == "knative":
        (service,) = documents
        assert service["spec"]["predictor"]["canaryTrafficPercent"] == 10
    else:
        service, route = documents
        assert service["metadata"]["name"] == "digits-canary"
        assert weights(route) == {"digits-predictor": 90, "digits-canary-predictor": 10}


class Counters(dict):
    """Metrics of pods by the start of their names: each look counts 50 more requests, of which some failed."""

    def get(self, name: str, default: str = "") -> str:
        self[name] = self.setdefault(name, 0) + 50
        failed = self[name] if "canary" in name or name.endswith("00002") else 0
        return (
            "# TYPE http_requests counter\n"
            f'http_requests_total{{handler="/predict",status="500"}} {failed}\n'
            f'http_requests_total{{handler="/predict",status="200"}} {self[name]}\n'
        )


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_a_canary_that_fails_requests_is_aborted_by_what_its_own_pods_count(api, target, ship, monkeypatch, mode):
    monkeypatch.setattr("mlapp.deploy.cluster.canary_analysis.PAUSE", 0.05)
    api.metrics = Counters()
    place = target(mode=mode)
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)

    with pytest.raises(DeployError, match=r"was aborted: 50.0% of its requests failed, compared with 0.0%"):
        place.judge(30)

    assert [release.state for release in place.releases()] == ["live", "aborted"]


def test_a_canary_whose_live_quality_is_worse_is_aborted(api, target, ship, monkeypatch):
    monkeypatch.setattr("mlapp.deploy.cluster.canary_analysis.PAUSE", 0.05)
    place = target(mode="standard")
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)

    with pytest.raises(DeployError, match="was aborted: version 2 is worse than 1"):
        place.judge(30, compare_quality=lambda live, trial: f"version {trial} is worse than {live}")

    assert [release.state for release in place.releases()] == ["live", "aborted"]
