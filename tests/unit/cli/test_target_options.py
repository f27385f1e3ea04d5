"""An option that a target cannot follow is refused before anything is built or asked."""

from __future__ import annotations

from pathlib import Path

import pytest

SETTINGS = """
name: digits
targets: {docker: {}, k8s: {namespace: team-a}, seldon: {storage_uri: "s3://models/digits"}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mlapp.yaml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        *((target, ["--force-conflicts"]) for target in ("docker", "lambda", "sagemaker", "flyte")),
        *((target, ["--namespace", "team-a"]) for target in ("docker", "lambda", "sagemaker", "flyte")),
        *((target, ["--context", "kind"]) for target in ("docker", "lambda", "sagemaker", "flyte")),
        ("flyte", ["--model", "3"]),
        ("seldon", ["--image", "registry.example/digits@sha256:" + "1" * 64]),
    ],
)
def test_deploy_refuses_an_option_that_the_target_would_ignore(root, mlapp, target, arguments):
    refused = mlapp("deploy", "--target", target, *arguments, cwd=root)
    option = arguments[0]
    assert refused.code != 0
    assert refused.err == f"Error: The target {target} does not support {option}.\nLeave {option} out.\n"


@pytest.mark.parametrize("command", [["status"], ["logs"], ["releases"], ["delete", "--yes"], ["eject", "rbac"]])
def test_a_target_without_namespaces_refuses_one_in_every_command(root, mlapp, command):
    refused = mlapp(*command, "--target", "docker", "--namespace", "team-a", cwd=root)
    assert refused.err == "Error: The target docker does not support --namespace.\nLeave --namespace out.\n"


@pytest.mark.parametrize("mode", [["--dry-run"], ["--to-git", "deployments.git"]])
@pytest.mark.parametrize("option", [["--force-conflicts"], ["--auto-promote", "10m"]])
def test_a_deploy_that_applies_nothing_refuses_the_options_of_applying(root, mlapp, mode, option):
    refused = mlapp("deploy", "--target", "k8s", *mode, *option, cwd=root)
    assert refused.err.startswith(f"Error: {option[0]} is given with {mode[0]}, which applies nothing.\n")


@pytest.mark.parametrize("target", ["docker", "lambda", "sagemaker", "flyte"])
def test_a_target_outside_of_a_cluster_has_no_objects_for_git(root, mlapp, target):
    refused = mlapp("deploy", "--target", target, "--to-git", "deployments.git", cwd=root)
    assert refused.err == f"Error: The target {target} has no Kubernetes objects.\nLeave out --to-git.\n"


@pytest.mark.parametrize("option", ["--namespace", "--context"])
def test_a_local_prediction_refuses_the_options_of_a_target(root, mlapp, option):
    refused = mlapp("predict", "--features", "new.csv", option, "team-a", cwd=root)
    assert refused.err == f"Error: {option} is given without --target.\nGive --target too, or leave {option} out.\n"
