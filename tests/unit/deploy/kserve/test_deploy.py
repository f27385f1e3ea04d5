"""Deploying to KServe: an InferenceService comes up, is operated, and goes back when it does not."""

from __future__ import annotations

import msgspec
import pytest
from api_double import ONE, TWO, Refused

from mlapp.deploy import DeployError
from mlapp.deploy.cluster.api_errors import make_api_error
from mlapp.deploy.shipping import make_shipment
from mlapp.errors import ConfigError
from mlapp.images.build import Image
from mlapp.project import Project
from tests.operations import CODE, operate_without_code

BUCKET = {"model_uri": "s3://models/digits/a", "manifest": '{"version":1}'}
MANIFEST = '{"app":"digits","version":1}'


def read_error(act) -> str:
    with pytest.raises(DeployError) as caught:
        act()
    assert caught.value.todo
    return caught.value.what


@pytest.fixture(params=["standard", "knative"])
def mode(request) -> str:
    return request.param


def test_the_first_deploy_and_its_update_take_few_calls(api, target, ship, mode):
    place, lines = target(mode=mode), []

    first = place.apply(ship(ONE), progress=lines.append)
    spent = len(place.cluster.calls)
    second = place.apply(ship(TWO, "2"))

    assert (first.number, first.state, second.number, second.state) == (1, "live", 2, "live")
    assert first.url.endswith(".models.example")
    assert spent <= 40
    assert len(place.cluster.calls) - spent <= 40
    assert any("answers: [7]" in line for line in lines), "a real prediction was asked for"
    assert api.names("inferenceservices") == ["digits"]


def test_the_image_alone_is_served_without_a_storage_uri(api, target, ship):
    target().apply(ship(ONE))

    predictor = api.get("inferenceservices", "digits")["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert (container["name"], container["image"], container["ports"]) == (
        "kserve-container",
        ONE,
        [{"containerPort": 8000}],
    )
    assert "model" not in predictor
    assert not any(variable["name"] == "STORAGE_URI" for variable in container["env"])


def test_a_version_in_a_bucket_is_fetched_by_kserve_and_shares_the_runtime(api, target, ship):
    one = ship(ONE, "1", model_uri="s3://models/digits/a", manifest=MANIFEST)
    two = ship(ONE, "2", model_uri="s3://models/digits/b", manifest=MANIFEST.replace("1", "2"))

    target().apply(one)
    runtimes = api.names("servingruntimes")
    target().apply(two)

    model = api.get("inferenceservices", "digits")["spec"]["predictor"]["model"]
    assert model["storageUri"] == "s3://models/digits/b"
    assert api.names("servingruntimes") == runtimes == [model["runtime"]], "a new version is no new runtime"
    (pod,) = api.names("pods")
    server = api.get("pods", pod)["spec"]["containers"][0]
    assert {"name": "MLAPP_MODEL_FOLDER", "value": "/mnt/models"} in server["env"]


def test_operating_it(api, target, ship, mode):
    place = target(mode=mode)
    place.apply(ship(ONE))
    place.apply(ship(TWO, "2"))

    status = place.status()
    assert (status.release.number, status.ready, status.problems, status.traffic) == (
        2,
        1 if mode == "standard" else 2,
        (),
        {2: 100},
    )
    assert next(line.text for line in place.logs(tail=1))
    assert place.predict([{"pixel": 1}])["predictions"] == [7]
    assert [release.state for release in place.releases()] == ["superseded", "live"]
    assert place.diff(ship(TWO, "2")) == ""
    changed = [line for line in place.diff(ship(ONE)).splitlines() if "image: registry" in line]
    assert [(line[0], line.split()[-1]) for line in changed] == [("-", TWO), ("+", ONE)]

    back = place.rollback()
    assert (back.number, back.note, back.shipment.image) == (3, "rollback to 1", ONE)
    assert "InferenceService/digits" in place.delete()
    assert api.names("inferenceservices") == api.names("configmaps") == []


def test_the_printed_role_is_enough_to_deploy_try_and_remove(api, target, ship, mode):
    place = target(mode=mode, namespace="team-a")
    (role,) = (document for document in place.rbac(ship()) if document["kind"] == "Role")
    allowed = {(verb, name) for rule in role["rules"] for name in rule["resources"] for verb in rule["verbs"]}

    def refuse(verb: str, plural: str, document: dict) -> None:
        if plural != "namespaces" and (verb, plural) not in allowed:
            raise Refused(403, "Forbidden", f'User "bob" cannot {verb} resource "{plural}"')

    api.refuse = refuse
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)
    assert place.status().canary is not None
    place.promote()
    place.rollback()
    place.delete()
    assert api.names("inferenceservices") == []


def test_a_release_that_does_not_become_ready_leaves_the_one_before_live(api, target, ship, mode):
    place = target(mode=mode)
    place.apply(ship(ONE))
    api.trouble[TWO] = "crash"

    what = read_error(lambda: place.apply(ship(TWO, "2")))

    assert "Rolled back: release 1 is live." in what
    assert api.get("inferenceservices", "digits")["spec"]["predictor"]["containers"][0]["image"] == ONE
    assert [release.state for release in place.releases()] == ["live", "failed"]


def test_a_wrong_prediction_leaves_the_release_before_live(api, target, ship):
    place = target()
    place.apply(ship(ONE))
    api.answers[TWO] = (500, {"detail": "no such column"})

    what = read_error(lambda: place.apply(ship(TWO, "2")))

    assert "answered 500 to a prediction: no such column" in what
    assert place.status().release.number == 1


def test_a_route_that_no_gateway_accepts_is_reported_as_that(api, target, ship):
    api.accepting = False

    what = read_error(lambda: target(seconds=1).apply(ship(ONE)))

    assert "The pods of digits answer, but it has no address" in what
    assert "no Gateway has accepted its HTTPRoute (ParentStatusNotAvailable)" in what
    assert "ParentStatusNotAvailable" in target().status().problems[-1]


def test_without_a_gateway_it_can_be_served_inside_the_cluster(api, target, ship):
    api.accepting = False
    internal = {"networking.kserve.io/visibility": "cluster-local"}

    with pytest.raises(DeployError) as caught:
        target(seconds=1).apply(ship(ONE))
    assert "targets.kserve.labels: {networking.kserve.io/visibility: cluster-local}" in caught.value.todo

    place = target(labels=internal)
    assert place.apply(ship(ONE)).url == "http://digits-predictor.team-a.svc.cluster.local"
    assert place.status().problems == ()


def test_a_failure_of_the_past_is_no_problem(api, target, ship):
    api.trouble[ONE] = "crash"
    assert "crashes" in read_error(lambda: target().apply(ship(ONE)))

    target().apply(ship(TWO, "2"))

    assert api.get("inferenceservices", "digits")["status"]["modelStatus"]["lastFailureInfo"]
    assert target().status().problems == ()


def test_a_request_above_the_limit_that_kserve_adds_is_refused_first(api, target, ship):
    over = {"cpu": "2", "cpu_limit": None}
    with pytest.raises(ConfigError, match="KServe adds its own of 1 CPU, which is less than the request of 2"):
        target(resources=over).render(ship(ONE))
    assert target(resources=over).render(ship(ONE, **BUCKET))[-1]["kind"] == "InferenceService", "no default there"
    assert target(resources={"cpu": "2", "cpu_limit": "3"}).render(ship(ONE))


def test_metadata_that_kserve_copies_to_the_pods_is_waited_for(api, target, ship):
    seen = set()
    for number, change in enumerate(({}, {"labels": {"team": "a"}}, {"annotations": {"team": "a"}}), 1):
        target(**change).apply(ship(ONE))
        (pod,) = api.names("pods")
        assert pod not in seen
        seen.add(pod)
        assert target(**change).status().replicas[0].release == number


def test_an_app_can_be_deployed_right_after_it_was_deleted(api, target, ship):
    api.finalizing = 0.4
    target().apply(ship(ONE))

    target().delete()

    assert api.names("inferenceservices") == []
    assert target().apply(ship(ONE)).state == "live"


def test_values_that_look_like_placeholders_stay_values(target, ship):
    runtime = target(env={"PATTERN": "{{name}}"}).render(ship(ONE, **BUCKET))[1]

    (value,) = [each["value"] for each in runtime["spec"]["containers"][0]["env"] if each["name"] == "PATTERN"]
    assert value == "{{`{{`}}name}}", "the Go template of {{name}}"


def test_the_image_s_own_model_can_be_served_although_the_store_is_in_a_bucket(target, ship):
    place = target(storage_uri="image")

    (service,) = place.render(ship(ONE, **BUCKET))
    assert "containers" in service["spec"]["predictor"]
    assert place.fetches_model("s3://models/digits/a") is False


def test_pod_security_that_refuses_kserve_s_own_container_says_what_helps(api, target, ship):
    message = (
        'pods "digits-predictor-1" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation '
        '!= false (container "storage-initializer" must set securityContext.allowPrivilegeEscalation=false)'
    )
    error = make_api_error(403, message, "create", "a pod", target().cluster.connection)

    assert "storage-initializer" in error.what
    assert "targets.kserve.storage_uri: image" in error.todo


def test_a_cluster_without_kserve_or_with_an_old_one_is_reported_before_anything_is_written(api, target, ship):
    api.served["serving.kserve.io"] = ["v1alpha2"]
    assert "KServe in context test is too old: it serves v1alpha2 of serving.kserve.io, not v1beta1" in read_error(
        lambda: target().apply(ship(ONE))
    )
    api.operators.clear()
    assert "does not know InferenceService: KServe is not installed" in read_error(target().check)
    assert api.names("configmaps") == api.names("leases") == []


@pytest.mark.parametrize(
    ("store", "settings", "has_model"),
    [("models", {}, True), ("s3://models", {}, False), ("models", {"storage_uri": "pvc://models/{version}"}, False)],
)
def test_an_image_holds_the_model_only_where_kserve_does_not_fetch_it(
    project, mlapp, target, monkeypatch, store, settings, has_model
):
    folder = project()
    assert mlapp("train").code == 0
    (folder / "mlapp.yaml").write_text("image: {name: registry.example/flowers}\n")
    reopened_project = Project.find(folder)
    own = reopened_project.store
    changed = msgspec.structs.replace(
        reopened_project.settings, store=msgspec.structs.replace(reopened_project.settings.store, url=store)
    )
    monkeypatch.setattr(Project, "store", property(lambda self: own))
    built = []

    def build(project, **options):
        built.append(options["has_model"])
        return [Image("registry.example/flowers:1", "sha256:1", "linux/amd64", 1, (), "sha256:" + "1" * 64)]

    monkeypatch.setattr("mlapp.images.project_image.build_project_image", build)
    shipment = make_shipment(Project(folder, changed, None), target(**settings), progress=lambda _: None)

    assert built == [has_model]
    assert ("model" in target(**settings).render(shipment)[-1]["spec"]["predictor"]) is not has_model


@pytest.mark.parametrize("readable", [True, False], ids=["by the controller's image", "by the schema"])
def test_a_kserve_before_0_17_is_refused_before_anything_is_written(api, target, ship, readable):
    api.minor, api.readable = 16, readable

    for act in (target().check, lambda: target().apply(ship(ONE)), lambda: target().diff(ship(ONE))):
        what = read_error(act)
        assert "KServe in context test is version 0.16; mlapp needs 0.17" in what or not readable
        assert "KServe in context test is older than 0.17" in what or readable

    assert {method for method, _ in api.requests} == {"GET"}
    api.minor = 17
    assert target().apply(ship(ONE)).state == "live"


def test_a_host_name_that_kserve_refuses_is_known_before_anything_is_written(api, target, ship):
    api.namespaces.add(long := "team-" + "x" * 50)
    api.objects["namespaces", "", long] = {"metadata": {"name": long}}
    assert target(namespace=long).apply(ship(ONE)).state == "live"  # this user may not read the template
    api.requests.clear()
    config = {"metadata": {"name": "inferenceservice-config"}, "data": {}}
    api.objects["configmaps", "kserve", "inferenceservice-config"] = config
    assert f"KServe would create the host name 'digits-predictor-{long}' of 72 characters" in read_error(
        lambda: target(namespace=long).apply(ship(ONE))
    )
    assert {method for method, _ in api.requests} == {"GET"}
    config["data"]["ingress"] = '{"domainTemplate": "{{ .Name }}.{{.Namespace}}.{{ .IngressDomain }}"}'
    target(namespace=long).check()
    # In Knative mode, Knative makes the host name.
    knative = {
        "metadata": {"name": "config-network"},
        "data": {"domain-template": "{{.Name}}-{{.Namespace}}.{{.Domain}}"},
    }
    api.objects["configmaps", "knative-serving", "config-network"] = knative
    what = f"Knative would create the host name 'digits-predictor-{long}' of 72 characters"
    assert what in read_error(lambda: target(namespace=long, mode="knative").check())


def test_the_longer_host_name_of_a_canary_is_known_before_anything_is_written(api, target, ship):
    api.namespaces.add(long := "team-" + "x" * 38)
    api.objects["namespaces", "", long] = {"metadata": {"name": long}}
    api.objects["configmaps", "kserve", "inferenceservice-config"] = {"metadata": {"name": "inferenceservice-config"}}
    assert target(namespace=long).apply(ship(ONE)).state == "live"
    what = f"KServe would create the host name 'digits-canary-predictor-{long}' of 67 characters"
    assert what in read_error(lambda: target(namespace=long).canary(ship(TWO, "2"), 20))
    assert [key for key in api.objects if key[0] == "inferenceservices"] == [("inferenceservices", long, "digits")]


def test_keda_waits_until_kserve_s_own_autoscaler_is_gone(api, target, ship):
    owner = {"kind": "InferenceService", "name": "digits", "uid": "1", "apiVersion": "serving.kserve.io/v1beta1"}
    mine = {"name": "digits-predictor", "namespace": "team-a", "ownerReferences": [owner]}
    api.add("horizontalpodautoscalers", {"metadata": mine, "spec": {}})
    keda = {"autoscaler": "keda", "max_replicas": 3}
    assert "KServe keeps the HorizontalPodAutoscaler digits-predictor" in read_error(
        lambda: target(**keda).apply(ship(ONE))
    )
    assert {method for method, _ in api.requests} == {"GET"}


def test_a_kserve_that_takes_another_mode_is_reported(api, target, ship):
    api.modes["Standard"] = "Serverless"

    assert "runs InferenceService/digits in Serverless mode, not in Standard mode" in read_error(
        lambda: target().apply(ship(ONE))
    )


def test_a_controller_that_does_not_run_is_reported(api, target, ship):
    api.idle = True

    assert "KServe has not started to process InferenceService/digits after 1 s" in read_error(
        lambda: target(seconds=1).apply(ship(ONE))
    )


def test_a_mode_that_changes_is_refused_in_the_words_of_the_webhook(api, target, ship):
    target().apply(ship(ONE))

    what = read_error(lambda: target(mode="knative").apply(ship(ONE)))

    assert "deploymentMode cannot be changed from 'Standard' to 'Knative'" in what
    assert [release.number for release in target().releases()] == [1], "nothing was written"


def test_a_quota_is_named_with_the_setting(api, target, ship):
    def refuse(verb, plural, document):
        if plural == "inferenceservices" and verb == "create":
            message = "exceeded quota: few, requested: count/inferenceservices=1, used: 3, limited: 3"
            raise Refused(403, "Forbidden", message)

    api.refuse = refuse
    with pytest.raises(DeployError) as caught:
        target().apply(ship(ONE))

    assert "InferenceService/digits exceeds the namespace's quota 'few'" in caught.value.what
    assert "targets.kserve.resources" in caught.value.todo


def test_every_operation_works_without_the_code(mlapp, project, target, ship):
    place = target(mode="knative")
    place.apply(ship(ONE))
    place.apply(ship(TWO))
    place.canary(ship(ONE), 20)
    settings = "name: digits\ntargets: {kserve: {mode: knative}}\n"

    operate_without_code(mlapp, project(CODE, mlapp__yaml=settings), "kserve", lambda: place.canary(ship(ONE), 20))
