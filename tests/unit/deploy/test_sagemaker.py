"""An endpoint of SageMaker, with moto as the control plane. moto has no UpdateEndpoint: this file adds it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("moto", reason="the core install has no AWS")

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.responses import ActionResult
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.models import SageMakerRuntimeBackend

from mlapp.config import Serve, Settings
from mlapp.deploy import DeployError, Shipment, open_target
from mlapp.deploy.sagemaker import SageMakerTarget
from mlapp.errors import ConfigError
from tests.operations import CODE, operate_without_code, write_log_group

ACCOUNT, REGION = "123456789012", "eu-west-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/sagemaker"
ECR = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/digits@sha256:"
ONE, TWO, WRONG, BROKEN = (ECR + digit * 64 for digit in "1234")


def update_endpoint(self: SageMakerResponse) -> ActionResult:
    """What SageMaker does: run the new configuration, or go back to the one before when it does not come up."""
    backend = self.sagemaker_backend
    endpoint = backend.endpoints[self._get_param("EndpointName")]
    config = backend.describe_endpoint_config(self._get_param("EndpointConfigName"))
    variants = config["ProductionVariants"]
    if any(backend._models[variant["ModelName"]].primary_container["Image"] == BROKEN for variant in variants):
        endpoint.failure_reason = "The primary container did not pass the ping health check."
        return ActionResult({"EndpointArn": endpoint.arn})
    endpoint.endpoint_config_name = config["EndpointConfigName"]
    endpoint.production_variants = endpoint._process_production_variants(variants)
    endpoint.failure_reason = None
    return ActionResult({"EndpointArn": endpoint.arn})


@pytest.fixture
def aws(monkeypatch) -> Iterator[Any]:
    """A client of the double. Models of the image `WRONG` answer without predictions."""
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(SageMakerResponse, "update_endpoint", update_endpoint, raising=False)
    monkeypatch.setattr("mlapp.deploy.sagemaker.endpoint.PAUSE", 0.01)

    def invoke(self: Any, endpoint_name: str, unique_repr: bytes) -> tuple[str, str, str, str]:
        backend = sagemaker_backends[ACCOUNT][REGION]
        last = backend.endpoints["digits"].production_variants[-1]["VariantName"]
        image = backend._models[f"digits-{last}"].primary_container["Image"]
        body = {"error": "no"} if image == WRONG else {"predictions": [7]}
        return json.dumps(body), "application/json", last, ""

    monkeypatch.setattr(SageMakerRuntimeBackend, "invoke_endpoint", invoke)
    with mock_aws():
        yield boto3.client("sagemaker", region_name=REGION)


@pytest.fixture
def target(aws) -> Callable[..., SageMakerTarget]:
    def make_target(**settings: Any) -> SageMakerTarget:
        return open_target("sagemaker", "digits", Settings(targets={"sagemaker": {"role": ROLE, **settings}}))

    return make_target


def ship(image: str = ONE, version: str = "1") -> Shipment:
    return Shipment("digits", image, version, "c0ffee", example=[{"pixel": 1}])


def test_a_release_is_a_model_and_a_configuration_and_answers(aws, target):
    place, lines = target(), []
    release = place.apply(ship(ONE), progress=lines.append)
    place.apply(ship(TWO, "2"))

    assert (release.number, release.state, release.by) == (1, "live", f"arn:aws:sts::{ACCOUNT}:user/moto")
    assert "variant r1 answers: [7]" in lines
    model = aws.describe_model(ModelName="digits-r2")["PrimaryContainer"]
    assert model == {"Image": TWO, "Environment": {"MLAPP_SERVE__HOST": "0.0.0.0", "MLAPP_SERVE__PORT": "8080"}}
    status = place.status()
    assert (status.release.number, status.traffic, status.ready, status.problems) == (2, {2: 100}, 1, ())
    assert place.predict([{"pixel": 1}]) == {"predictions": [7]}
    assert place.diff(ship(TWO, "2")) == ""
    assert f"+image: {ONE}" in place.diff(ship(ONE))

    back = place.rollback()
    assert (back.number, back.note, back.shipment.image) == (3, "rollback to 1", ONE)
    assert [each.state for each in place.releases()] == ["superseded", "superseded", "live"]
    assert place.delete()[0] == "Endpoint/digits"
    assert aws.list_models()["Models"] == aws.list_endpoint_configs()["EndpointConfigs"] == []


def test_a_canary_is_a_second_variant_by_its_weight(aws, target):
    place = target()
    place.apply(ship(ONE))

    assert place.canary(ship(TWO, "2"), 20).state == "canary"
    assert place.status().traffic == {1: 80, 2: 20}
    with pytest.raises(DeployError, match="Release 2 is still a canary"):
        place.apply(ship(TWO))
    assert place.promote().state == "live"
    assert (place.status().traffic, place.status().canary) == ({2: 100}, None)

    place.canary(ship(ONE, "3"), 20)
    assert place.abort().state == "aborted"
    assert place.status().traffic == {2: 100}
    names = {config["EndpointConfigName"] for config in aws.list_endpoint_configs()["EndpointConfigs"]}
    assert names == {"digits-r1", "digits-r2", "digits-r3"}


@pytest.mark.parametrize(
    ("image", "words"),
    [(BROKEN, "did not pass the ping health check"), (WRONG, "answered with no predictions")],
)
def test_a_release_that_fails_leaves_the_one_before_live(target, image, words):
    place = target()
    place.apply(ship(ONE))

    with pytest.raises(DeployError, match=f"{words}[\\s\\S]*Rolled back: release 1 is live"):
        place.apply(ship(image, "2"))
    with pytest.raises(DeployError, match=f"The canary failed: [\\s\\S]*{words}[\\s\\S]*release 1 is live"):
        place.canary(ship(image, "3"), 10)

    assert place.status().traffic == {1: 100}
    assert [each.state for each in place.releases()] == ["live", "failed", "failed"]


@pytest.mark.parametrize(
    ("errors", "latency", "outcome"),
    [
        (0, 5_000, None),
        (9, 5_000, "aborted: 9.0% of its requests failed, compared with 0.0%"),
        (0, 9_000, "9.0 ms, compared with 5.0 ms"),
    ],
    ids=["as good", "fails", "is slow"],
)
def test_a_canary_is_judged_by_cloudwatch(aws, target, errors, latency, outcome):
    place, lines = target(), []
    place.apply(ship(ONE))
    place.canary(ship(TWO, "2"), 20)
    with pytest.raises(DeployError, match="too few for a decision"):
        place.judge(0.01)
    for variant, failed, slow in (("r1", 0, 5_000), ("r2", errors, latency)):
        own = [{"Name": "EndpointName", "Value": "digits"}, {"Name": "VariantName", "Value": variant}]
        values = {"Invocations": 100, "Invocation5XXErrors": failed, "ModelLatency": slow}
        data = [{"MetricName": name, "Value": value, "Dimensions": own} for name, value in values.items()]
        boto3.client("cloudwatch", REGION).put_metric_data(Namespace="AWS/SageMaker", MetricData=data)

    if outcome is None:
        assert place.judge(0.01, progress=lines.append).state == "live"
        assert "canary: 100 requests, 0.0% failed, 5.0 ms; live: 100 requests, 0.0% failed, 5.0 ms" in lines
        assert place.status().traffic == {2: 100}
    else:
        with pytest.raises(DeployError, match=re.escape(outcome)):
            place.judge(0.01)
        assert place.status().traffic == {1: 100}
        assert place.releases()[-1].state == "aborted"


def refuse(operation: str, text: str) -> Callable[..., None]:
    def call(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "ValidationException", "Message": text}}, operation)

    return call


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        ("create_model", "Cannot create already existing model arn:aws:sagemaker:eu-west-1:1:model/digits-r2"),
        ("update_endpoint", "Cannot update in-progress endpoint arn:aws:sagemaker:eu-west-1:1:endpoint/digits"),
    ],
)
def test_of_two_deploys_at_once_the_second_changes_nothing_and_says_so(target, monkeypatch, operation, text):
    place = target()
    place.apply(ship(ONE))
    with monkeypatch.context() as patched:
        patched.setattr(place._endpoint.client, operation, refuse(operation, text))
        for act in (lambda: place.apply(ship(TWO, "2")), lambda: place.canary(ship(TWO, "2"), 10)):
            with pytest.raises(DeployError, match="Another deploy of the endpoint digits is in progress") as caught:
                act()
            assert text in caught.value.what
    assert place.status().traffic == {1: 100}
    assert place.apply(ship(TWO, "2")).state == "live"


def test_what_another_deploy_made_live_meanwhile_is_not_taken_back(aws, target, monkeypatch):
    place = target()
    place.apply(ship(ONE))

    def fail_after_another(body: Any, variant: str) -> None:
        target().apply(ship(TWO, "3"))
        raise DeployError("The model answers 500.", "Look at it.")

    monkeypatch.setattr(place._endpoint, "invoke", fail_after_another)
    with pytest.raises(DeployError, match="Another deploy of the endpoint digits is in progress"):
        place.apply(ship(TWO, "2"))

    assert aws.describe_endpoint(EndpointName="digits")["EndpointConfigName"] == "digits-r3"


def test_every_operation_works_without_the_code(mlapp, project, target):
    place = target()
    place.apply(ship(ONE))
    place.apply(ship(TWO))
    place.canary(ship(ONE), 20)
    write_log_group("/aws/sagemaker/Endpoints/digits", REGION)
    settings = f"name: digits\ntargets: {{sagemaker: {{role: '{ROLE}'}}}}\n"

    operate_without_code(mlapp, project(CODE, mlapp__yaml=settings), "sagemaker", lambda: place.canary(ship(ONE), 20))


def test_autoscaling_follows_the_variant_that_serves(target):
    place = target(autoscaling={"min": 2, "max": 6, "requests": 100})
    client = boto3.client("application-autoscaling", region_name=REGION)

    def scaled() -> list[tuple[str, int, int]]:
        scalable_targets = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [(each["ResourceId"], each["MinCapacity"], each["MaxCapacity"]) for each in scalable_targets]

    place.apply(ship(ONE))
    assert scaled() == [("endpoint/digits/variant/r1", 2, 6)]
    place.apply(ship(TWO))
    assert scaled() == [("endpoint/digits/variant/r2", 2, 6)]
    place.delete()
    assert scaled() == []


def test_a_missing_right_is_named(target, monkeypatch):
    text = "User: arn:aws:iam::1:user/ada is not authorized to perform: sagemaker:CreateModel on resource: digits-r1"
    place = target()

    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": text}}, "CreateModel")

    monkeypatch.setattr(place._endpoint.client, "create_model", refuse)
    with pytest.raises(DeployError, match="lacks the permission sagemaker:CreateModel"):
        place.apply(ship())


def test_what_is_missing_or_not_ours_is_reported_before_anything_is_made(aws, target):
    with pytest.raises(DeployError, match=re.escape("targets.sagemaker.role is missing")):
        target(role=None).apply(ship())
    with pytest.raises(ConfigError, match="targets.sagemaker.env.DB_PASSWORD looks like a secret"):
        target(env={"DB_PASSWORD": "hunter2"}).check()
    with pytest.raises(ConfigError, match="api_keys does nothing on SageMaker"):
        settings = Settings(targets={"sagemaker": {"role": ROLE}}, serve=Serve(api_keys=["k"]))
        open_target("sagemaker", "digits", settings).check()
    assert aws.list_models()["Models"] == []


def test_a_dry_run_prints_a_template_without_an_account(monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    place = open_target("sagemaker", "my_app.v2", Settings())

    (template,) = place.render_canary(ship(), 10)

    variants = template["Resources"]["EndpointConfig"]["Properties"]["ProductionVariants"]
    assert [variant["InitialVariantWeight"] for variant in variants] == [90.0, 10.0]
    assert template["Resources"]["Endpoint"]["Properties"]["EndpointName"] == "my-app-v2"
    assert template["Parameters"] == {"ExecutionRoleArn": {"Type": "String"}}


def test_the_argument_that_sagemaker_appends_is_no_app():
    from mlapp.errors import MlappError
    from mlapp.serving.serve_spec import find_served_projects

    with pytest.raises(MlappError, match="bundle"):
        find_served_projects(["serve"], "/nowhere", None)
    with pytest.raises(MlappError, match="Apps and --bundle are both given"):
        find_served_projects(["app.py"], "/nowhere", None)
