"""Secrets are found by name and content: left out if git does not track them, refused if it does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlapp.bundle import BundleError
from mlapp.bundle.project_files import find_project_files
from mlapp.bundle.secrets import detect_secret_by_content, detect_secret_by_name

NAMED = [
    *(".aws/credentials", ".kube/config", ".docker/config.json", ".ssh/known_hosts", ".git-credentials", ".npmrc"),
    *(".pypirc", ".pgpass", "service-account.json", "application_default_credentials.json", "terraform.tfstate"),
    *("store.p12", "store.pfx", "store.jks", "secrets.yaml", ".streamlit/secrets.toml", ".envrc", "prod.env"),
    *(".ENV", "id_rsa.bak", ".env", "conf/.env.production", "deep/.aws/config", "terraform.tfstate.backup"),
    *(".env~", "prod.env.bak", "secrets.yaml.old", ".aws.bak/credentials", "admin_accessKeys.csv", ".oci/config"),
    *("prod.auto.tfvars", "terraform.tfvars.json", ".Renviron", ".mylogin.cnf", ".mc/config.json", ".dockercfg"),
]
HARMLESS = [
    "app.py",
    "secrets.py",
    ".env.example",
    "id_rsa.pub",
    "environment.yml",
    "keys.csv",
    "env.yml",
    "tokenizer.json",
    "credentials.html",
    "README.md",
    "monkey.json",
]
AWS = "AKIA" + "IOSFODNN7EXAMPLE"  # in two parts, so that no scanner of this repository finds it
HELD = [
    ("notes.txt", f"see\n\nkey {AWS}\n", "line 3: AWS Access Key"),
    ("config.toml", "token = 'ghp_" + "a1" * 18 + "'\n", "line 1: GitHub Token"),
    (
        "conf.json",
        '{"type": "service_account", "private_key": "-----BEGIN ' + 'PRIVATE KEY-----\\nMIIE"}',
        "line 1: Private Key",
    ),
    ("windows.txt", "\ufefftoken = ghp_" + "a1" * 18 + "\n", "line 1: GitHub Token"),
    ("lake.cfg", "token = dapi" + "a1" * 16 + "\n", "line 1: Databricks Token"),
    ("cluster.yaml", "users:\n- user:\n    client-key-data: " + "LS0t" * 10, "line 3: Kubernetes Credential"),
    ("server.pem", "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\n", "line 1: Private Key"),
    (
        "pip.conf",
        "[global]\nextra-index-url = https://ci:hunter2@pypi.example.org/simple\n",
        "line 2: Password in a URL",
    ),
    ("requirements.txt", f"a @ git+https://{'x' * 24}@git.example.org/a.git\n", "line 1: Token in a URL"),
    ("requirements.txt", "--index-url https://ci:%24ecret@${HOST}/simple\n", "line 1: Password in a URL"),
    (".yarnrc.yml", "npmAuthToken: 0123-4567-89ab\n", "line 1: Password or Token"),
    ("nuget.config", '<add key="ClearTextPassword" value="hunter2" />\n', "line 1: Password or Token"),
    ("settings.xml", "<server><password>hunter2</password></server>\n", "line 1: Password or Token"),
    ("mlapp.yaml", "serve:\n  api_keys: [hunter2]\n", "serve.api_keys"),
    ("mlapp.yaml", "environments: {live: {serve: {api_keys: [hunter2]}}}\n", "environments.live.serve.api_keys"),
]
PLAIN = [
    ("app.py", "if '-----BEGIN PRIVATE ' 'KEY-----' in text: pass\nTOKEN = os.environ['TOKEN']\n"),
    ("ca.pem", "-----BEGIN CERTIFICATE-----\nMIIE\n"),
    ("mlapp.yaml", "serve: {api_keys: []}\n"),
    ("image.png", "\0\0" + AWS),
    ("pip.conf", "[global]\nindex-url = https://${USER}:${TOKEN}@pypi.example.org/simple\n"),
    ("requirements.txt", "a @ git+ssh://git@git.example.org/a.git\ntoken-bucket==1.0\n# password: tokens\n"),
    ("requirements.txt", "--index-url https://ci:%(token)s@host/simple\n"),
    (".yarnrc.yml", 'npmAuthToken: "${NPM_TOKEN}"\n'),
    ("pyproject.toml", '[project]\ndescription = "password: a strength meter"\nkeywords = ["token"]\n'),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text("A = 1\n")
    return tmp_path


def write(root: Path, name: str, text: str = "x") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def track(root: Path, *names: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "-f", *names], cwd=root, check=True)


def test_names_that_hold_secrets_and_names_that_only_look_like_it() -> None:
    assert [name for name in NAMED if detect_secret_by_name(Path(name)) is None] == []
    assert [name for name in HARMLESS if detect_secret_by_name(Path(name)) is not None] == []


@pytest.mark.parametrize(("name", "text", "reason"), HELD)
def test_a_secret_in_the_content_is_named_by_line_and_kind(root: Path, name: str, text: str, reason: str) -> None:
    (root / name).write_text(text, encoding="utf-16-le" if text.startswith("\ufeff") else "utf-8")
    assert detect_secret_by_content(root / name) == reason


@pytest.mark.parametrize(("name", "text"), PLAIN)
def test_what_holds_no_secret_is_shipped(root: Path, name: str, text: str) -> None:
    write(root, name, text)
    assert Path(name) in find_project_files(root, warn=pytest.fail)


def test_untracked_ones_are_left_out_and_reported(root: Path) -> None:
    for name in [*NAMED, *HARMLESS]:
        write(root, name)
    write(root, "notes.txt", f"key {AWS}\n")
    warnings: list[str] = []
    assert {path.as_posix() for path in find_project_files(root, warn=warnings.append)} == set(HARMLESS)
    assert len(warnings) == len(NAMED) + 1
    assert any(line.startswith("notes.txt looks like a secret (line 1: AWS Access Key)") for line in warnings)


@pytest.mark.parametrize("ignore", [None, "prod.env\nnotes.txt\n"])
def test_tracked_ones_are_refused_unless_dockerignore_names_them(root: Path, ignore: str | None) -> None:
    write(root, "prod.env")
    write(root, "notes.txt", AWS)
    track(root, "app.py", "prod.env", "notes.txt")
    if ignore is not None:
        write(root, ".dockerignore", ignore)
        assert {path.name for path in find_project_files(root, warn=pytest.fail)} == {"app.py", ".dockerignore"}
        return
    with pytest.raises(BundleError) as refused:
        find_project_files(root, warn=pytest.fail)
    assert "notes.txt (line 1: AWS Access Key); prod.env (its name)" in refused.value.what
    assert "image.include" in refused.value.todo


def test_image_include_ships_them(root: Path) -> None:
    write(root, "prod.env")
    write(root, "conf/notes.txt", AWS)
    track(root, "app.py", "prod.env")
    files = find_project_files(root, include=["prod.env", "conf/*"], warn=pytest.fail)
    assert {path.as_posix() for path in files} == {"app.py", "prod.env", "conf/notes.txt"}


def test_one_that_the_app_needs_is_refused_though_git_does_not_track_it(root: Path) -> None:
    write(root, "mlapp.yaml", "serve: {api_keys: [hunter2]}\n")
    with pytest.raises(BundleError, match=r"mlapp\.yaml \(serve\.api_keys\)"):
        find_project_files(root, needed=[Path("mlapp.yaml")], warn=pytest.fail)
