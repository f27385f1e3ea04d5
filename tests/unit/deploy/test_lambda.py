"""Deploying to AWS Lambda: moto is the account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.config import Serve
from mlapp.deploy import DeployError, Shipment
from mlapp.deploy.aws_lambda import LambdaTarget
from mlapp.errors import ConfigError
from tests.operations import CODE, operate_without_code, write_log_group

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")
requests = pytest.importorskip("requests")

REGION = "eu-central-1"
REPOSITORY = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/digits"
ANSWER = {"predictions": [4], "model": "digits", "version": "1"}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty account; the role's ARN."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with moto.mock_aws(config={"lambda": {"use_docker": False}}):
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
                 "Principal": {"Service": "lambda.amazonaws.com"}}]}  # fmt: skip
        role = boto3.client("iam").create_role(RoleName="digits", AssumeRolePolicyDocument=json.dumps(trust))
        yield role["Role"]["Arn"]


@pytest.fixture
def target(account: str) -> LambdaTarget:
    return make_target(account)


def make_target(role: str | None, **settings: Any) -> LambdaTarget:
    return LambdaTarget("digits", LambdaSettings(role=role, region=REGION, **settings), Serve())


def shipment(number: int, example: Any = ((0.0, 1.0),)) -> Shipment:
    return Shipment("digits", f"{REPOSITORY}@sha256:{number:064}", str(number), "abc", example)


def answer_with(*values: Any) -> None:
    """Queue what the function answers to the next invocations."""
    body = json.dumps({"results": [json.dumps(value) for value in values], "region": REGION}).encode()
    headers = {"Content-Type": "application/json"}
    requests.post("http://motoapi.amazonaws.com/moto-api/static/lambda-simple/response", data=body, headers=headers)


def client() -> Any:
    return boto3.client("lambda", REGION)


def test_a_version_is_a_release_and_an_alias_what_is_live(target: LambdaTarget) -> None:
    assert target.check() == f"AWS account 123456789012, region {REGION}"
    assert target.status().release is None
    answer_with(ANSWER)
    messages: list[str] = []
    first = target.apply(shipment(1), progress=messages.append)
    assert (first.number, first.state, first.shipment.model_version) == (1, "live", "1")
    assert first.url
    assert "digits:live is version 1" in messages
    function = client().get_function(FunctionName="digits", Qualifier="live")["Configuration"]
    assert function["ImageConfigResponse"]["ImageConfig"]["EntryPoint"][-2:] == ["-m", "mlapp.aws_lambda"]
    assert client().get_function_url_config(FunctionName="digits", Qualifier="live")["AuthType"] == "AWS_IAM"
    answer_with(ANSWER)
    second = target.apply(shipment(2))
    assert [(each.number, each.state) for each in target.releases()] == [(1, "superseded"), (2, "live")]
    answer_with(ANSWER)
    assert target.rollback().number == 1
    status = target.status()
    assert status.release is not None
    assert (status.release.number, status.traffic, status.problems) == (1, {1: 100}, ())
    answer_with(ANSWER)
    assert target.predict([[0.0, 1.0]]) == ANSWER
    with pytest.raises(DeployError, match="no release 7"):
        target.rollback(7)
    assert second.number == 2
    assert target.delete() == ["function digits"]
    assert target.delete() == []
    assert target.releases() == []


def test_a_release_that_does_not_answer_never_goes_live(target: LambdaTarget) -> None:
    answer_with({"errorMessage": "no"})
    with pytest.raises(DeployError, match="does not answer with predictions.*The function was removed again"):
        target.apply(shipment(1))
    assert target.releases() == []
    answer_with(ANSWER)
    target.apply(shipment(1))
    answer_with({"statusCode": 500, "body": '{"detail": "it broke"}'})
    with pytest.raises(DeployError, match="answers 500: it broke. Release 2 was removed: release 1 is still live"):
        target.apply(shipment(2))
    assert [(each.number, each.state) for each in target.releases()] == [(1, "live")]


def test_a_canary_is_a_weight_of_the_alias(target: LambdaTarget) -> None:
    with pytest.raises(DeployError, match="digits has no live release"):
        target.canary(shipment(1), 10)
    answer_with(ANSWER)
    target.apply(shipment(1))
    answer_with(ANSWER)
    assert target.canary(shipment(2), 10).state == "canary"
    alias = client().get_alias(FunctionName="digits", Name="live")
    assert alias["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.1}}
    assert target.status().traffic == {1: 90, 2: 10}
    for refused in (lambda: target.apply(shipment(3)), lambda: target.canary(shipment(3), 5), target.rollback):
        with pytest.raises(DeployError, match="Release 2 is a canary"):
            refused()
    assert target.abort().state == "aborted"
    assert target.status().traffic == {1: 100}
    with pytest.raises(DeployError, match="There is no canary"):
        target.promote()
    answer_with(ANSWER)
    target.canary(shipment(3), 50)
    assert (target.promote().state, target.status().traffic) == ("live", {3: 100})


@pytest.mark.parametrize("is_worse", [False, True], ids=["as good", "worse"])
def test_a_canary_is_judged_by_cloudwatch(target: LambdaTarget, is_worse: bool) -> None:
    answer_with(ANSWER)
    target.apply(shipment(1))
    answer_with(ANSWER)
    target.canary(shipment(2), 10)
    with pytest.raises(DeployError, match="too few for a decision"):
        target.judge(0.01)
    for version, errors in (("1", 0), ("2", 9 if is_worse else 0)):
        dimensions = [{"Name": "FunctionName", "Value": "digits"}, {"Name": "Resource", "Value": "digits:live"},
                      {"Name": "ExecutedVersion", "Value": version}]  # fmt: skip
        for metric, value in (("Invocations", 100), ("Errors", errors), ("Duration", 5)):
            boto3.client("cloudwatch", REGION).put_metric_data(
                Namespace="AWS/Lambda", MetricData=[{"MetricName": metric, "Value": value, "Dimensions": dimensions}]
            )
    if is_worse:
        with pytest.raises(DeployError, match="aborted: 9.0% of its requests failed"):
            target.judge(0.01)
        assert target.status().traffic == {1: 100}
    else:
        assert target.judge(0.01).number == 2


def test_every_operation_works_without_the_code(mlapp: Any, project: Any, target: LambdaTarget, account: str) -> None:
    answer = {"predictions": [7], "model": "digits", "version": "1"}
    for act in (target.apply, target.apply, lambda shipped: target.canary(shipped, 20)):
        answer_with(answer)
        act(shipment(len(target.releases()) + 1))
    write_log_group("/aws/lambda/digits", REGION)
    settings = f"name: digits\ntargets: {{lambda: {{role: '{account}', region: {REGION}}}}}\n"

    def start_canary() -> None:
        answer_with(answer)
        target.canary(shipment(4), 20)

    root = project(CODE, mlapp__yaml=settings)
    operate_without_code(mlapp, root, "lambda", start_canary, answer=lambda: answer_with(answer))


def test_a_dry_run_is_a_template_and_a_diff_names_what_changes(account: str) -> None:
    target = make_target(account, url="public")
    [template] = target.render(shipment(1))
    function = template["Resources"]["Function"]["Properties"]
    assert (function["Code"]["ImageUri"], function["Role"]) == (shipment(1).image, account)
    assert template["Resources"]["PublicUrl"]["Properties"]["Action"] == "lambda:InvokeFunctionUrl"
    assert "+ImageUri" in target.diff(shipment(1))
    answer_with(ANSWER)
    target.apply(shipment(1))
    assert target.diff(shipment(1)) == ""
    bigger = make_target(account, memory=2048, url="public")
    assert "-MemorySize: 1024\n+MemorySize: 2048\n" in bigger.diff(shipment(1))
    [trial] = target.render_canary(shipment(2), 20)
    routing = trial["Resources"]["Live"]["Properties"]["RoutingConfig"]["AdditionalVersionWeights"]
    assert routing[0]["FunctionWeight"] == 0.2
    assert "RoleArn" in make_target(None).render(shipment(1))[0]["Parameters"]
    target.delete()
    [first] = make_target(account).render_canary(shipment(2), 20)
    assert first["Resources"]["Live"]["Properties"]["FunctionVersion"] == {"Ref": "LiveVersion"}, "nothing is live"


def test_a_missing_right_is_named(target: LambdaTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def refuse(self: Any, operation: str, options: Any) -> Any:
        text = f"User: arn:aws:iam::1:user/me is not authorized to perform: lambda:{operation} on resource: digits"
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": text}}, operation)

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    with pytest.raises(DeployError, match="lacks the permission lambda:GetAlias") as error:
        target.apply(shipment(1))
    assert "mlapp eject iam" in error.value.todo


def test_an_alias_that_another_moved_is_left_alone(target: LambdaTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(ANSWER, ANSWER, ANSWER)
    target.apply(shipment(1))
    target.apply(shipment(2))
    publish = target._function.publish

    def publish_meanwhile(record: Any) -> str:
        version = publish(record)
        client().update_alias(FunctionName="digits", Name="live", FunctionVersion="1")
        return version

    monkeypatch.setattr(target._function, "publish", publish_meanwhile)
    with pytest.raises(DeployError, match="Another deploy moved the alias live .* to version 1"):
        target.apply(shipment(3))
    assert client().get_alias(FunctionName="digits", Name="live")["FunctionVersion"] == "1"


def test_an_alias_of_a_version_that_mlapp_did_not_publish_is_reported_and_rolled_back(target: LambdaTarget) -> None:
    answer_with(ANSWER)
    target.apply(shipment(1))
    client().update_alias(FunctionName="digits", Name="live", FunctionVersion="$LATEST")
    status = target.status()
    assert (status.release, status.problems) == (
        None,
        ("The alias live points to version $LATEST, which mlapp did not publish.",),
    )
    answer_with(ANSWER)
    assert target.rollback().number == 1
    assert target.status().problems == ()


def test_the_registry_of_the_account_is_opened(target: LambdaTarget) -> None:
    for _ in range(2):
        place = target.open_registry()
        assert (place.repository, place.user) == (REPOSITORY, "AWS")
    assert list(target.platforms) == ["linux/amd64"]


def test_logs_come_from_cloudwatch(target: LambdaTarget) -> None:
    logs = boto3.client("logs", REGION)
    with pytest.raises(DeployError, match="FilterLogEvents"):
        list(target.logs())
    logs.create_log_group(logGroupName="/aws/lambda/digits")
    logs.create_log_stream(logGroupName="/aws/lambda/digits", logStreamName="2026/11/29/[1]abcdef")
    import time

    now = int(time.time() * 1000)
    events = [{"timestamp": now + at, "message": f"line {at}"} for at in range(3)]
    logs.put_log_events(logGroupName="/aws/lambda/digits", logStreamName="2026/11/29/[1]abcdef", logEvents=events)
    assert [(line.replica, line.text) for line in target.logs(tail=2)] == [("abcdef", "line 1"), ("abcdef", "line 2")]


def test_a_secret_in_plain_text_is_refused_before_an_image_is_built(account: str) -> None:
    with pytest.raises(ConfigError, match="targets.lambda.env.DB_PASSWORD looks like a secret"):
        make_target(account, env={"DB_PASSWORD": "hunter2"}).check()


def test_no_role_is_reported_before_an_image_is_built() -> None:
    with pytest.raises(DeployError, match="targets.lambda.role"):
        make_target(None).check()


def test_the_least_role_is_printed(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    from mlapp.cli.main import run

    (tmp_path / "mlapp.yaml").write_text("name: digits\ntargets: {lambda: {output: 's3://out/predictions'}}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run(["eject", "iam"])
    assert not end.value.code
    resources = yaml.safe_load(capsys.readouterr().out)["Resources"]
    [policy] = resources["FunctionRole"]["Properties"]["Policies"]
    actions = [action for statement in policy["PolicyDocument"]["Statement"] for action in statement["Action"]]
    assert actions == ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "s3:PutObject"]
    deployer = json.dumps(resources["DeployPolicy"])
    assert "lambda:UpdateAlias" in deployer
    assert "iam:PassRole" in deployer


def test_the_least_role_of_another_target_is_printed_too(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    from mlapp.cli.main import run

    (tmp_path / "mlapp.yaml").write_text("name: digits\ntargets: {sagemaker: {autoscaling: {}}}\n")
    monkeypatch.chdir(tmp_path)
    for arguments in (["eject", "iam"], ["eject", "iam", "--target", "sagemaker"]):
        with pytest.raises(SystemExit) as end:
            run(arguments)
        assert not end.value.code
        resources = yaml.safe_load(capsys.readouterr().out)["Resources"]
        role = json.dumps(resources["ExecutionRole"])
        assert "sagemaker.amazonaws.com" in role
        assert "ecr:BatchGetImage" in role
        deployer = json.dumps(resources["DeployPolicy"])
        assert "sagemaker:UpdateEndpointWeightsAndCapacities" in deployer
        assert "application-autoscaling:PutScalingPolicy" in deployer
    with pytest.raises(SystemExit) as end:
        run(["eject", "iam", "--target", "docker"])
    assert end.value.code == 2
    assert "not on AWS" in capsys.readouterr().err


def test_commands_deploy_show_and_go_back(account: str, tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    from mlapp.cli.main import run

    (tmp_path / "mlapp.yaml").write_text(
        f"name: digits\ntargets: {{lambda: {{role: '{account}', region: {REGION}, url: none}}}}\n"
    )
    monkeypatch.chdir(tmp_path)

    def mlapp(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            run(arguments)
        output = capsys.readouterr()
        assert not end.value.code, output.err
        return output.out

    def image(number: int) -> str:
        return shipment(number).image

    ready = {"statusCode": 200, "body": "{}"}
    assert image(1) in mlapp("deploy", "--dry-run", "--image", image(1))
    answer_with(ready)
    mlapp("deploy", "--image", image(1))
    assert "FunctionWeight: 0.25" in mlapp("deploy", "--dry-run", "--canary", "25", "--image", image(2))
    answer_with(ready)
    assert json.loads(mlapp("deploy", "--canary", "25", "--image", image(2), "--json"))["state"] == "canary"
    assert json.loads(mlapp("promote", "--json"))["number"] == 2
    answer_with(ready)
    assert json.loads(mlapp("rollback", "--json"))["number"] == 1
    assert json.loads(mlapp("status", "--json"))["traffic"] == {"1": 100}
    assert len(json.loads(mlapp("releases", "--json"))) == 2
    mlapp("delete", "--yes")
    assert client().list_functions()["Functions"] == []
