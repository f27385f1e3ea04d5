"""Operating an app needs its name and the target's settings; never its code, which may be what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from api_double import ONE, TWO

from mlapp.deploy import DeployError

RAISES = "open('ran', 'w')\nraise RuntimeError('the database is away')\n"
SETTINGS = "targets: {k8s: {rollout: {leave: 0, timeout: 60}}}\n"


@pytest.fixture(params=["raises", "is no Python", "absent"])
def operator(request, project, target, ship) -> Callable[..., Any]:
    """Two releases are shipped; then the code breaks, or the operator has mlapp.yaml alone."""
    target().apply(ship(ONE))
    target().apply(ship(TWO))
    target().canary(ship(ONE), 20)
    if request.param == "absent":
        return project(None, mlapp__yaml=f"name: digits\n{SETTINGS}")
    code = RAISES if request.param == "raises" else "def (:\n"
    return project(f"from mlapp import App\n\napp = App('digits', target='target')\n{code}", mlapp__yaml=SETTINGS)


def test_every_operation_works_while_the_code_is_broken(mlapp, operator, api, target, ship):
    def run(*arguments: str) -> str:
        ran = mlapp(*arguments)
        assert ran.code == 0, ran.err
        return ran.out

    assert json.loads(run("status", "--json"))["canary"]["number"] == 3
    run("logs", "--tail", "1")
    assert [release["number"] for release in json.loads(run("releases", "--json"))] == [1, 2, 3]
    run("abort")
    target().canary(ship(ONE), 20)
    assert json.loads(run("promote", "--json"))["state"] == "live"
    assert json.loads(run("rollback", "--to", "2", "--json"))["note"] == "rollback to 2"
    (operator / "rows.csv").write_bytes(b"pixel\r\n007\r\n")
    assert json.loads(run("predict", "--target", "k8s", "--features", "rows.csv")) == [7]
    assert api.asked[-1] == ("text/csv", b"pixel\r\n007\r\n"), "the file goes as it is"
    run("delete", "--yes")
    assert not (operator / "ran").exists(), "the code was run"


def test_the_status_of_an_app_that_is_not_deployed_says_how_to_deploy_it(mlapp, project, target):
    target()  # sets KUBECONFIG
    project(None, mlapp__yaml=f"name: digits\n{SETTINGS}")

    ran = mlapp("status")

    assert (ran.code, ran.err) == (0, "Nothing is deployed there. Deploy it: mlapp deploy --target k8s\n")


def test_without_any_name_the_error_says_where_to_write_it(mlapp, project, target):
    project(None, mlapp__yaml=SETTINGS)
    ran = mlapp("status")
    assert (ran.code, "Add `name: NAME` to mlapp.yaml." in ran.err) == (1, True), ran.err


def test_the_name_in_the_settings_and_in_the_code_must_be_one(mlapp, project):
    project(mlapp__yaml="name: blossoms\n")
    ran = mlapp("train")
    assert "The App in app.py is 'flowers', but mlapp.yaml says `name: blossoms`." in ran.err


def test_a_dry_run_prints_a_canary_without_a_request(mlapp, project, api, target):
    project("from mlapp import App\n\napp = App('digits', target='target')\n", mlapp__yaml=SETTINGS)

    ran = mlapp("deploy", "--dry-run", "--canary", "25", "--image", TWO)

    assert ran.code == 0, ran.err
    canary = next(item for item in yaml.safe_load_all(ran.out) if item["kind"] == "Deployment")
    assert (canary["metadata"]["name"], canary["spec"]["replicas"]) == ("digits-canary", 1)
    assert api.requests == []


def test_what_another_target_deployed_is_left_alone(mlapp, project, api, target, ship):
    target().apply(ship(ONE))
    record = api.get("configmaps", "digits-release-1")["data"]
    record["release.json"] = record["release.json"].replace('"target": "k8s"', '"target": "kserve"')

    with pytest.raises(DeployError, match="is deployed in .* by the target kserve, not k8s"):
        target().apply(ship(TWO))
