"""`mlapp deploy --to-git` and `mlapp eject gitops`: a release as a commit, and who applies it."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from mlapp.deploy import DeployError, Shipment, git_release
from mlapp.deploy.git_release import MARK, commit_release
from tests.servers import binary

IMAGE = "registry.example/digits@sha256:" + "1" * 64
OTHER = "registry.example/digits@sha256:" + "2" * 64
SETTINGS = """
name: digits
targets: {k8s: {namespace: team-a, env: {COLOR: red}}}
environments: {production: {targets: {k8s: {replicas: 3}}}}
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def bare(tmp_path) -> Path:
    """An empty repository, as a server has it."""
    folder = tmp_path / "deployments.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(folder))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "mlapp.yaml").write_text(SETTINGS)
    return folder


@pytest.fixture
def deploy(root, bare, mlapp):
    def run(*more: str, image: str = IMAGE, to: Path = bare):
        arguments = ["--target", "k8s", "--env", "production", "--image", image, "--to-git", str(to)]
        return mlapp("deploy", *arguments, *more, cwd=root)

    return run


def files(bare: Path, path: str = "digits/production") -> list[str]:
    return git(bare, "ls-tree", "--name-only", f"main:{path}").splitlines()


def commit(documents: list[dict], bare: Path, path: str) -> git_release.GitRelease:
    return commit_release(documents, Shipment("digits", IMAGE), str(bare), path, progress=lambda text: None)


def config(name: str) -> list[dict]:
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}]


@pytest.mark.parametrize("settings", ["monitor: {url: s3://bucket/monitor}", "monitor: {drift: false, log: off}"])
def test_monitoring_that_pods_lose_is_mentioned(deploy, root, settings):
    note = (
        "Monitoring data stays in each pod and is lost with it: set `monitor.url` in mlapp.yaml to a bucket (s3://…).\n"
    )
    assert deploy().err.endswith(note)
    (root / "mlapp.yaml").write_text(f"{SETTINGS}{settings}\n")
    assert "Monitoring data" not in deploy().err


def test_a_release_is_a_commit(deploy, bare):
    done = deploy()
    assert done.code == 0, done.err
    assert done.out.strip() == git(bare, "rev-parse", "main")
    assert files(bare) == [
        "config-map.yaml", "deployment.yaml", "network-policy.yaml", "pod-disruption-budget.yaml",
        "service-account.yaml", "service.yaml",
    ]  # fmt: skip
    deployment = yaml.safe_load(git(bare, "show", "main:digits/production/deployment.yaml"))
    assert deployment["spec"]["replicas"] == 3
    assert "app.kubernetes.io/managed-by" not in deployment["metadata"]["labels"], "mlapp deletes what has this label"
    message = git(bare, "log", "-1", "--format=%B")
    assert message.startswith("Deploy another image of digits\n\nTo digits/production.")
    assert f"Image: {IMAGE}" in message


def test_the_same_release_again_is_no_commit(deploy, bare):
    deploy()
    again = deploy()
    assert again.code == 0
    assert "nothing to commit" in again.err
    assert git(bare, "rev-list", "--count", "main") == "1"


def test_what_others_keep_in_the_folder_stays(deploy, bare, tmp_path):
    deploy()
    git(tmp_path, "clone", "--quiet", str(bare), "clone")
    clone = tmp_path / "clone"
    (clone / "digits/production/rollout.yaml").write_text("kind: Rollout\n")
    (clone / "digits/production/old.yaml").write_text(f"{MARK}\nkind: ConfigMap\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "Add a Rollout")
    git(clone, "push", "--quiet")
    assert deploy(image=OTHER).code == 0
    assert "rollout.yaml" in files(bare)
    assert "old.yaml" not in files(bare), "an object of an earlier release is removed with its file"


def test_a_file_of_somebody_else_is_not_replaced(deploy, bare, tmp_path):
    git(tmp_path, "clone", "--quiet", str(bare), "clone")
    clone = tmp_path / "clone"
    (clone / "digits/production").mkdir(parents=True)
    (clone / "digits/production/service.yaml").write_text("kind: Service\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "Add a Service")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    refused = deploy()
    assert refused.code == 1
    assert "digits/production/service.yaml already exists, and mlapp did not write it." in refused.err
    assert git(bare, "rev-list", "--count", "main") == "1"


def test_deploys_that_push_at_the_same_time_all_arrive(bare):
    commit(config("first"), bare, "start")
    threads = [threading.Thread(target=commit, args=(config(f"c{n}"), bare, f"app-{n}")) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert git(bare, "ls-tree", "--name-only", "main").split() == ["app-0", "app-1", "app-2", "app-3", "start"]


def test_of_two_deploys_of_one_app_at_the_same_time_the_second_is_refused(bare, monkeypatch):
    commit(config("first"), bare, "digits")
    push = git_release._push_release_commit

    def push_second(*arguments):
        monkeypatch.setattr(git_release, "_push_release_commit", push)
        commit(config("other"), bare, "digits")
        return push(*arguments)

    monkeypatch.setattr(git_release, "_push_release_commit", push_second)
    with pytest.raises(DeployError, match=r"Someone else changed digits in .* at the same time; nothing was pushed."):
        commit(config("mine"), bare, "digits")
    assert "other" in git(bare, "show", "main:digits/config-map.yaml")


def test_a_clone_gets_a_commit_that_the_user_pushes(deploy, bare, tmp_path):
    deploy()
    git(tmp_path, "clone", "--quiet", str(bare), "clone")
    clone = tmp_path / "clone"
    (clone / "README.md").write_text("in progress\n")
    git(clone, "add", "README.md")
    done = deploy(image=OTHER, to=clone)
    assert f"push it: git -C {clone} push" in done.err
    assert git(clone, "status", "--porcelain") == "A  README.md", "what the user has staged is not in the commit"
    assert git(bare, "rev-list", "--count", "main") == "1"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--canary", "10"], "--canary is given with --to-git."),
        (["--git-path", "../other"], "--git-path ../other is not a relative path inside the repository."),
        (["--git-branch", "trunk"], "has no branch trunk."),
    ],
)
def test_what_cannot_work_is_reported_and_nothing_is_written(deploy, bare, more, message):
    commit(config("first"), bare, "start")
    refused = deploy(*more)
    assert refused.code != 0
    assert message in refused.err
    assert git(bare, "rev-list", "--count", "main") == "1"


def test_a_repository_that_refuses_says_why(deploy, bare):
    hook = bare / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2; exit 1\n")
    hook.chmod(0o755)
    refused = deploy()
    assert refused.code == 1
    assert "refused the push" in refused.err
    assert "main is protected" in refused.err


def test_argo_cd_applies_the_folder_that_deploy_writes(root, bare, deploy, mlapp):
    deploy()
    arguments = ["--env", "production", "--repo", "https://git.example.org/deployments.git", "--rollouts"]
    done = mlapp("eject", "gitops", "--format", "argocd", *arguments, cwd=root)
    assert done.code == 0, done.err
    application = yaml.safe_load((root / "gitops/application.yaml").read_text())
    assert application["metadata"]["name"] == "digits-production"
    source = application["spec"]["source"]
    assert files(bare, source["path"])
    assert source == {
        "repoURL": "https://git.example.org/deployments.git",
        "targetRevision": "main",
        "path": "digits/production",
    }
    rollout = yaml.safe_load((root / "gitops/rollout.yaml").read_text())
    template = yaml.safe_load((root / "gitops/analysis-template.yaml").read_text())
    analysis = rollout["spec"]["strategy"]["canary"]["steps"][1]["analysis"]
    assert analysis["templates"] == [{"templateName": template["metadata"]["name"]}]
    assert [each["name"] for each in analysis["args"]] == [each["name"] for each in template["spec"]["args"]]


def test_flux_applies_the_folder_that_deploy_writes(root, mlapp):
    assert mlapp("eject", "gitops", "--format", "flux", "--repo", "https://git.example.org/x.git", cwd=root).code == 0
    source, kustomization = yaml.safe_load_all((root / "gitops/flux.yaml").read_text())
    assert kustomization["spec"]["sourceRef"]["name"] == source["metadata"]["name"]
    assert kustomization["spec"]["path"] == "./digits"
    assert mlapp("eject", "gitops", "--format", "flux", cwd=root).code == 2, "nothing is overwritten"


def test_the_analysis_fails_a_canary_that_errs_or_drifts_and_no_other(root, tmp_path, mlapp):
    """The queries, answered by Prometheus itself: version 2 is the canary's."""
    mlapp("eject", "gitops", cwd=root)
    template = yaml.safe_load((root / "gitops/analysis-template.yaml").read_text())
    queries = {
        metric["name"]: metric["provider"]["prometheus"]["query"]
        .replace("{{args.canary-hash}}", "new")
        .replace("{{args.stable-hash}}", "old")
        for metric in template["spec"]["metrics"]
    }

    def serve_version(version: str, pod: str) -> str:
        pods = f'namespace="team-a", pod="digits-{pod}-x"'
        return f'mlapp_monitored_rows_total{{model="digits", version="{version}", {pods}}}'

    def requests(pod: str, status: str) -> str:
        return f'http_requests_total{{namespace="team-a", pod="digits-{pod}-x", handler="/predict", status="{status}"}}'

    def problems(version: str) -> str:
        return f'mlapp:feature_problems:ratio{{model="digits", version="{version}", feature="q", kind="unseen"}}'

    common = [
        {"series": serve_version("1", "old"), "values": "0+100x20"},
        {"series": serve_version("2", "new"), "values": "0+10x20"},
        {"series": requests("old", "200"), "values": "0+1000x20"},
        {"series": requests("new", "200"), "values": "0+30x20"},
    ]
    bad = [
        {"series": requests("new", "500"), "values": "0+10x20"},
        {"series": problems("2"), "values": "0.5x20"},
    ]
    old_alarm = [{"series": problems("1"), "values": "0.5x20"}]

    def case(series: list[dict], errors: float, alarms: int) -> dict:
        expected = {"error-rate": errors, "mlapp-unusual-values": alarms}
        return {
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [
                {"expr": queries[name], "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": value}]}
                for name, value in expected.items()
            ],
        }

    tests = {"rule_files": [], "tests": [case([*common, *bad], 0.25, 1), case([*common, *old_alarm], 0, 0)]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    command = [binary("promtool", script="monitoring.sh"), "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
