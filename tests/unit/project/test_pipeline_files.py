"""What `mlapp eject ci` and `mlapp init --ci` write. tests/integration/images/test_pipelines.py runs the pipelines."""

from __future__ import annotations

import compileall
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlapp.ci import pipeline_files
from mlapp.ci.pipeline_files import FILES
from mlapp.config import load_settings


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A project of the name `Shop` in the folder `models/shop` of a repository whose default branch is `trunk`."""
    repository = tmp_path_factory.mktemp("repository").resolve()
    for command in ("init -q", "symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/trunk"):
        subprocess.run(["git", *command.split()], cwd=repository, check=True)
    root = repository / "models" / "shop"
    root.mkdir(parents=True)
    (root / "mlapp.yaml").write_text(
        "name: Shop\n"
        "store: s3://models/shared\n"
        "targets: {flyte: {}, kserve: {}}\n"
        "environments: {production: {serve: {workers: 4}}}\n"
    )
    (root / "app.py").write_text(
        "raise RuntimeError('the source is read and not run')\n@app.data_reader\ndef f(limit=1): ..."
    )
    return repository


def test_a_project_in_a_folder_of_a_repository(shop, tmp_path, mlapp):
    written = mlapp("eject", "ci", "--format", "github", cwd=shop / "models/shop")
    assert written.code == 0, written.err
    files = {str(Path(line).relative_to(shop)) for line in written.out.splitlines()}
    assert {".github/workflows/shop-deploy.yml", "models/shop/.ci/deploy.sh"} <= files
    workflow = yaml.safe_load((shop / ".github/workflows/shop-deploy.yml").read_text())
    push = workflow[True]["push"]  # YAML 1.1 reads the key `on` as true
    assert push == {"branches": ["trunk"], "paths": ["models/shop/**", ".github/**"]}
    assert workflow["jobs"]["release"]["defaults"]["run"]["working-directory"] == "models/shop"
    script = (shop / "models/shop/.ci/deploy.sh").read_text()
    assert "mlapp deploy --target kserve --namespace shop-staging --image" in script
    assert "mlapp deploy --target kserve --env production --image" in script
    assert "mlapp train --remote --json" in (shop / "models/shop/.ci/release.sh").read_text()
    assert "small=(-p limit=500)" in (shop / "models/shop/.ci/pull-request.sh").read_text()
    assert "[docker,k8s,sign,s3,flyte]" in (shop / "models/shop/.ci/setup.sh").read_text()


def test_a_folder_that_the_shell_would_read_as_commands_is_refused(shop, tmp_path, mlapp):
    root = shop / "models/a; curl example.org"
    root.mkdir()
    for name in ("mlapp.yaml", "app.py"):
        (root / name).write_text((shop / "models/shop" / name).read_text())
    refused = mlapp("eject", "ci", "--format", "gitlab", cwd=root)
    assert (refused.code, "cannot be used in a pipeline's files" in refused.err) == (2, True), refused.err
    assert sorted(path.name for path in root.iterdir()) == ["app.py", "mlapp.yaml"]


def test_every_action_is_pinned_by_its_commit(shop, mlapp):
    mlapp("eject", "ci", cwd=shop / "models/shop")
    texts = [path.read_text() for path in (shop / ".github").rglob("*.yml")]
    uses = [match for text in texts for match in re.findall(r"uses: (.*)", text)]
    assert uses
    assert all(re.fullmatch(r"\./.*|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses)
    assert not [text for text in texts if re.search(r"@[A-Z_]+@", text)], "no placeholder is left"


def test_jobs_get_no_more_rights_than_they_need(shop, mlapp):
    mlapp("eject", "ci", cwd=shop / "models/shop")
    for path in (shop / ".github/workflows").iterdir():
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        rights = {right for job in workflow["jobs"].values() for right in job["permissions"].items()}
        assert rights <= {
            ("contents", "read"), ("id-token", "write"), ("packages", "write"), ("pull-requests", "write")
        }  # fmt: skip


def run_script(root: Path, name: str, **tools: str) -> subprocess.CompletedProcess[str]:
    """Run one of the pipeline's scripts with tools that are scripts themselves, and write what they are called with."""
    folder = root / "tools"
    folder.mkdir(exist_ok=True)
    for tool, text in tools.items():
        (folder / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >>{root}/calls\n{text}\n')
        (folder / tool).chmod(0o755)
    (root / "calls").unlink(missing_ok=True)
    path = f"{folder}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", f".ci/{name}.sh"], cwd=root, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )


PYTHON = f'case "$1" in -m) exit 5;; *) exec {sys.executable} "$@";; esac'


def test_a_release_is_signed_by_the_identity_of_the_job_alone(shop, mlapp, tmp_path, monkeypatch):
    root = shop / "models/shop"
    mlapp("eject", "ci", "--format", "github", cwd=root)
    workflow = yaml.safe_load((shop / ".github/workflows/shop-deploy.yml").read_text())
    jobs = workflow["jobs"]
    assert {name for name, job in jobs.items() if "id-token" in job["permissions"]} == set(jobs), "OIDC, no keys"
    assert jobs["release"]["permissions"]["id-token"] == "write"
    steps = jobs["release"]["steps"]
    names = [step.get("uses", step.get("id", "")).partition("@")[0] for step in steps]
    assert names.index("sigstore/cosign-installer") < names.index("release")
    assert steps[names.index("sigstore/cosign-installer")]["if"] == "vars.MLAPP_SIGN == ''"
    assert steps[-1]["env"] == {"SIGN": "${{ vars.MLAPP_SIGN }}"}
    assert "PRIVATE_KEY" not in str(workflow)

    trained = 'case "$1" in train) echo "{\\"version\\": 7}";; build) echo registry/shop@sha256:1;; esac'
    done = run_script(root, "release", mlapp=trained, python=PYTHON, cosign="")
    assert done.returncode == 0, done.stderr
    calls = (root / "calls").read_text()
    assert "mlapp models sign 7 --keyless\n" in calls
    assert "cosign sign --yes registry/shop@sha256:1\n" in calls
    assert "IMAGE=registry/shop@sha256:1" in (root / ".mlapp/release.env").read_text()
    (root / "tools/cosign").unlink()
    monkeypatch.setenv("COSIGN_URL", tmp_path.as_uri())
    refused = run_script(root, "release", mlapp=trained, python=PYTHON)
    assert (refused.returncode, "the image is not signed" in refused.stderr) == (1, True)
    assert "build" not in (root / "calls").read_text(), "before anything is pushed"


def test_a_first_model_is_compared_with_none(shop, mlapp):
    root = shop / "models/shop"
    mlapp("eject", "ci", "--format", "github", cwd=root)
    answers = 'case "$2" in pull) exit 1;; list) echo "[{}]";; compare) echo "table of $*";; esac'
    done = run_script(root, "pull-request", mlapp=answers, python=PYTHON)
    assert done.returncode == 0, done.stderr
    comment = (root / ".mlapp/comment.md").read_text()
    assert "There is no version `production` to compare it with." in comment
    assert "table of models compare 1 --markdown" in comment


def test_no_text_of_a_request_is_part_of_a_script(shop, mlapp):
    mlapp("eject", "ci", cwd=shop / "models/shop")
    for path in (shop / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            assert not [step for step in job.get("steps", []) if "${{" in step.get("run", "")], path.name
    request = (shop / ".github/workflows/shop-pull-request.yml").read_text()
    for name in ("AWS_ROLE_ARN", "KUBE_SERVER", "EKS_CLUSTER"):
        assert re.search(
            rf"{name}: \${{{{ github.event.pull_request.head.repo.full_name == github.repository &&", request
        )


def test_both_formats_share_the_scripts_and_nothing_is_overwritten(shop, mlapp):
    root = shop / "models/shop"
    assert mlapp("eject", "ci", "--format", "gitlab", cwd=root).code == 0
    assert mlapp("eject", "ci", "--format", "github", cwd=root).code == 0
    (root / ".ci/deploy.sh").write_text("echo mine\n")
    refused = mlapp("eject", "ci", "--format", "github", cwd=root)
    assert refused.code == 2
    assert f"{root}/.ci/deploy.sh already exists" in refused.err
    (root / ".ci/deploy.sh").unlink()


def test_the_bytecode_of_an_installation_is_no_script(shop, mlapp, monkeypatch, tmp_path):
    """pip compiles each module of a package, also the one among the scripts."""
    installed = shutil.copytree(pipeline_files.FILES, tmp_path / "files")
    compileall.compile_dir(installed, quiet=1)
    monkeypatch.setattr(pipeline_files, "FILES", installed)

    assert mlapp("eject", "ci", "--format", "github", cwd=shop / "models/shop").code == 0
    scripts = list((shop / "models/shop/.ci").iterdir())
    assert scripts
    assert all(script.is_file() for script in scripts)


def test_a_new_project_with_pipelines(tmp_path, mlapp):
    assert mlapp("init", "digits", "--ci", "github", cwd=tmp_path).code == 0
    root = tmp_path / "digits"
    assert (root / ".github/workflows/digits-pull-request.yml").is_file()
    assert load_settings(root, "staging").targets == {"k8s": {"namespace": "digits-staging"}}
    assert "deploy --target k8s --env production" in (root / ".ci/deploy.sh").read_text()


def test_an_unknown_system_is_refused_before_anything_is_written(tmp_path, mlapp):
    refused = mlapp("init", "digits", "--ci", "gitlub", cwd=tmp_path)
    assert refused.code == 2
    assert "There is no CI system 'gitlub'. Did you mean 'gitlab'?" in refused.err
    assert not (tmp_path / "digits").exists()


def test_cosign_is_installed_only_with_the_content_that_is_pinned(tmp_path):
    script = FILES / "scripts" / "cosign.sh"
    mirror, folder = tmp_path / "mirror", tmp_path / "bin"
    mirror.mkdir()
    for machine in ("amd64", "arm64"):
        (mirror / f"cosign-linux-{machine}").write_text("#!/bin/sh\necho another\n")
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "COSIGN_URL": mirror.as_uri()}

    done = subprocess.run([script, folder], env=environment, capture_output=True, text=True)
    assert (done.returncode, list(folder.iterdir())) == (1, [])
    assert "is not the pinned cosign: its SHA-256 differs" in done.stderr

    own = hashlib.sha256((mirror / "cosign-linux-amd64").read_bytes()).hexdigest()
    pinned = tmp_path / "cosign.sh"
    pinned.write_text(re.sub("sum=[0-9a-f]{64}", f"sum={own}", script.read_text()))
    subprocess.run(["bash", pinned, folder], env=environment, check=True)
    assert subprocess.run([folder / "cosign"], capture_output=True, text=True).stdout == "another\n"
