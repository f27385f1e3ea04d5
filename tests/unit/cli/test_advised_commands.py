"""Commands in errors work as printed: they repeat where the failed command ran."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp.cli.advised_commands import complete_advised_commands
from mlapp.deploy import DeployError
from mlapp.deploy.docker.target import DockerTarget
from mlapp.errors import MlappError


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["deploy"], ""),
        (["deploy", "--target", "k8s", "-n", "team-a", "--canary", "10"], " --target k8s --namespace team-a"),
        (["promote", "-t", "knative", "--env=staging"], " --target knative --env staging"),
        (["deploy", "--context", "two words"], " --context 'two words'"),
    ],
)
def test_the_flags_of_the_place_are_repeated(arguments: list[str], flags: str) -> None:
    error = MlappError("Release 4 failed.", "See `mlapp status`, then `mlapp rollback --to 3`.")
    assert (
        complete_advised_commands(error, arguments).todo
        == f"See `mlapp status{flags}`, then `mlapp rollback{flags} --to 3`."
    )


@pytest.mark.parametrize(
    "todo",
    [
        "Use another namespace; `mlapp delete --target kserve` removes that one.",
        "Run `mlapp models promote 3`.",
        "Train again: `mlapp train`.",
    ],
)
def test_other_commands_stay(todo: str) -> None:
    assert complete_advised_commands(MlappError("x", todo), ["deploy", "--target", "k8s"]).todo == todo


def test_an_error_of_a_target_names_it(mlapp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: DockerTarget) -> None:
        raise DeployError("A deploy is in progress.", "Look at `mlapp status`.")

    (tmp_path / "mlapp.yaml").write_text("name: digits\ntargets: {docker: {}, k8s: {}}\n")
    monkeypatch.setattr(DockerTarget, "releases", fail)
    failed = mlapp("releases", "--target", "docker", cwd=tmp_path)
    assert failed.err == "Error: A deploy is in progress.\nLook at `mlapp status --target docker`.\n"
    assert failed.code == 1
