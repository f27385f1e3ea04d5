"""Where a project's requirements come from, and how they are locked."""

import subprocess
import sys

import pytest

from mlapp.bundle import BundleError
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines, resolve_requirement_folder
from mlapp.bundle.requirements import read_declared_requirements
from mlapp.bundle.resolve import resolve_requirements
from mlapp.bundle.uv import run_uv
from mlapp.bundle.wheel import pack_wheel
from mlapp.config import Image

PYPROJECT = """
[project]
name = "p"
version = "1"
requires-python = ">=3.10"
dependencies = ["click"]
"""
POETRY = """
[[package]]
name = "click"
version = "8.1.7"
groups = ["main"]

[[package]]
name = "pytest"
version = "8.0.0"
groups = ["dev"]

[[package]]
name = "colorama"
version = "0.4.6"
groups = ["main", "dev"]
markers = {main = "platform_system == \\"Windows\\""}

[metadata]
lock-version = "2.1"
"""
PDM = """
[[package]]
name = "click"
version = "8.1.7"
groups = ["default"]

[[package]]
name = "pytest"
version = "8.0.0"
groups = ["test"]
"""
WHEEL = "ae74fb96c20a0277a1d615f1e4d73c8414f5a98db8b799a7931d1582f3390c28"
FILES = f'files = [{{file = "click-8.1.7-py3-none-any.whl", hash = "sha256:{WHEEL}"}}]'


def lock_of(root):
    settings = {"root": root, "python": "3.11", "image": Image(), "cache": root / "locks"}
    return resolve_requirements(read_declared_requirements(root, Image(), "3.11"), "idna", {}, **settings)


def locked(root):
    return {package.name: package.version for package in lock_of(root).packages}


def test_a_lock_is_preferred_to_requirements_and_those_to_pyproject(tmp_path):
    assert read_declared_requirements(tmp_path, Image(), "3.11") is None
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert read_declared_requirements(tmp_path, Image(), "3.11") is None
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    assert read_declared_requirements(tmp_path, Image(), "3.11").source == "pyproject.toml"
    (tmp_path / "requirements.txt").write_text("click\n")
    assert read_declared_requirements(tmp_path, Image(), "3.11").source == "requirements.txt"
    (tmp_path / "pdm.lock").write_text(PDM)
    assert read_declared_requirements(tmp_path, Image(), "3.11").lines == ("click==8.1.7",)
    (tmp_path / "poetry.lock").write_text(POETRY)
    assert read_declared_requirements(tmp_path, Image(), "3.11").lines == (
        "click==8.1.7",
        'colorama==0.4.6 ; platform_system == "Windows"',
    )


@pytest.mark.parametrize("line", ["mlapp", "mlapp[sklearn]==0.1.0", "MLApp >= 0.1 ; python_version > '3'", "mlapp # x"])
def test_the_unrelated_package_of_the_same_name_is_found_in_requirements(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"mlapp-kit[sklearn]\n{line}\n")
    assert read_declared_requirements(tmp_path, Image(), "3.11").has_unrelated_mlapp
    (tmp_path / "requirements.txt").write_text("mlapp-kit[sklearn]==0.1.0\nmlapp_tools\nmlapp.other>1\n")
    assert not read_declared_requirements(tmp_path, Image(), "3.11").has_unrelated_mlapp


def test_pyproject_and_its_uv_lock(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace('"click"', '"click<8.2"'))
    assert locked(tmp_path)["click"].startswith("8.1")
    subprocess.run([sys.executable, "-m", "uv", "lock", "--quiet"], cwd=tmp_path, check=True)
    declared = read_declared_requirements(tmp_path, Image(), "3.11")
    assert declared.source == "uv.lock"
    assert locked(tmp_path)["click"].startswith("8.1")


def test_what_only_windows_needs_is_not_locked(tmp_path):
    (tmp_path / "poetry.lock").write_text(POETRY)
    assert set(locked(tmp_path)) == {"click", "idna"}


def test_what_only_an_early_patch_of_python_needs_is_locked_too(tmp_path):
    (tmp_path / "requirements.txt").write_text(
        'six ; python_full_version < "3.11.3"\nclick ; python_version < "3.11"\n'
    )
    assert "six" in locked(tmp_path)
    assert "click" not in locked(tmp_path)


def test_a_version_that_is_free_is_that_of_the_training(tmp_path):
    (tmp_path / "requirements.txt").write_text("click\n")
    options = {"root": tmp_path, "python": "3.11", "image": Image(), "cache": tmp_path / "locks"}
    lock = resolve_requirements(
        read_declared_requirements(tmp_path, Image(), "3.11"), "idna", {"click": "8.1.6"}, **options
    )
    assert {package.name: package.version for package in lock.packages}["click"] == "8.1.6"


def test_a_lock_is_kept_until_its_inputs_change(tmp_path):
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("click\n")
    locked(tmp_path)
    (lock_file,) = (tmp_path / "locks").iterdir()
    before = lock_file.stat().st_mtime_ns
    locked(tmp_path)
    assert lock_file.stat().st_mtime_ns == before
    (tmp_path / "more.txt").write_text("click<8.2\n")
    assert locked(tmp_path)["click"].startswith("8.1")
    assert len(list((tmp_path / "locks").iterdir())) == 2


def test_a_broken_lock_is_named(tmp_path):
    (tmp_path / "poetry.lock").write_text("[[package]\n")
    with pytest.raises(BundleError, match=r"poetry\.lock is not TOML"):
        read_declared_requirements(tmp_path, Image(), "3.11")
    (tmp_path / "poetry.lock").unlink()
    (tmp_path / "pyproject.toml").write_text('[tool.poetry.dependencies]\nclick = "*"\n')
    with pytest.raises(BundleError, match="for Poetry, but there is no poetry.lock"):
        read_declared_requirements(tmp_path, Image(), "3.11")


def test_a_locked_file_is_parsed_back():
    numpy = "numpy==2.1 ; platform_machine == 'x86_64' \\\n    --hash=sha256:bb \\\n    --hash=sha256:aa\n"
    text = f"{numpy}idna==3.1 \\\n    --hash=sha256:cc\n"
    numpy, idna = parse_locked_requirement_lines(text)
    assert (numpy.name, numpy.version, numpy.hashes) == ("numpy", "2.1", ("aa", "bb"))
    assert str(idna) == "idna==3.1 \\\n    --hash=sha256:cc"


def test_what_a_lock_of_poetry_1_8_needs_is_found_from_pyproject(tmp_path):
    """It names neither groups nor categories."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.poetry.dependencies]\npython = "^3.10"\nuvicorn = {version = "*", extras = ["standard"]}\n'
        'pywin32 = {version = "*", markers = "sys_platform == \'win32\'"}\n'
        '[tool.poetry.group.dev.dependencies]\npytest = "*"\n'
    )
    packages = {"uvicorn": 'uvloop = {version = "*", markers = "extra == \'standard\'"}\n'}
    text = ""
    for name in ("uvicorn", "uvloop", "pytest", "pywin32"):
        text += f'[[package]]\nname = "{name}"\nversion = "1"\noptional = false\n'
        text += f"[package.dependencies]\n{packages[name]}" if packages.get(name) else ""
    (tmp_path / "poetry.lock").write_text(text)
    assert read_declared_requirements(tmp_path, Image(), "3.11").lines == ("uvicorn==1", "uvloop==1")


def test_a_lock_says_where_packages_come_from_and_which_files_they_are(tmp_path):
    (tmp_path / "poetry.lock").write_text("""
[[package]]
name = "Private_One"
version = "1"
groups = ["main"]
files = [{file = "x.whl", hash = "sha256:bb"}, {file = "x.tar.gz", hash = "sha256:aa"}]
[package.source]
type = "legacy"
url = "https://packages.example.org/simple"
reference = "ours"

[[package]]
name = "of-git"
version = "1"
groups = ["main"]
[package.source]
type = "git"
url = "https://git.example.org/of-git.git"
resolved_reference = "abc123"
subdirectory = "python"

[[package]]
name = "beside"
version = "1"
groups = ["main"]
[package.source]
type = "directory"
url = "../beside"
""")
    declared = read_declared_requirements(tmp_path, Image(), "3.11")
    assert declared.lines == (
        "private-one==1",
        "of-git @ git+https://git.example.org/of-git.git@abc123#subdirectory=python",
        f"beside @ {(tmp_path.parent / 'beside').as_uri()}",
    )
    assert declared.hashes == {("private-one", "1"): ("aa", "bb")}
    assert declared.indexes == ("--extra-index-url https://packages.example.org/simple",)


def test_the_files_that_a_lock_names_are_the_only_ones(tmp_path):
    (tmp_path / "pdm.lock").write_text(PDM.replace('groups = ["default"]', f'groups = ["default"]\n{FILES}'))
    (click,) = (each for each in lock_of(tmp_path).packages if each.name == "click")
    assert click.hashes == (WHEEL,)


def test_what_requirements_say_of_indexes_is_kept_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hush")
    (tmp_path / "vendored").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "-i https://me:${TOKEN}@packages.example.org/simple\n--find-links vendored\n-r more.txt\n"
    )
    (tmp_path / "more.txt").write_text("--extra-index-url=https://other.example.org/simple\n")
    declared = read_declared_requirements(tmp_path, Image(), "3.11")
    assert declared.folders == (tmp_path / "vendored",)
    assert declared.indexes == (
        "--index-url https://me:${TOKEN}@packages.example.org/simple",
        "--extra-index-url https://other.example.org/simple",
    )


@pytest.mark.needs("uv")
def test_a_member_of_a_workspace_has_the_lock_of_the_workspace(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["*"]\n')
    members = {"app": 'dependencies = ["shared"]\n[tool.uv.sources]\nshared = {workspace = true}\n', "shared": ""}
    for name, more in members.items():
        (tmp_path / name).mkdir()
        head = f'[project]\nname = "{name}"\nversion = "1"\nrequires-python = ">=3.10"\n'
        build = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n' if not more else ""
        (tmp_path / name / "pyproject.toml").write_text(head + more + build)
    subprocess.run([sys.executable, "-m", "uv", "lock", "--quiet"], cwd=tmp_path, check=True)
    declared = read_declared_requirements(tmp_path / "app", Image(), "3.11")
    assert (declared.source, declared.lines) == ("uv.lock", (str(tmp_path / "shared"),))


@pytest.mark.parametrize(
    "line",
    [
        "libs/mine",
        "./libs/mine",
        "-e ./libs/mine[more]",
        "--editable=libs/mine#egg=mine",
        "-e ${HERE}/libs/mine",
        "mine @ file://${HERE}/libs/mine",
        "mine[more] @ ./libs/mine",
        "./libs/mine ; python_version >= '3.10'",
    ],
)
def test_a_folder_is_taken_however_it_is_written(tmp_path, monkeypatch, line):
    monkeypatch.setenv("HERE", str(tmp_path / "with space"))
    root = tmp_path / "with space"
    (root / "libs" / "mine").mkdir(parents=True)
    (root / "libs" / "mine" / "pyproject.toml").write_text(PYPROJECT.replace('"p"', '"mine"'))
    (root / "requirements.txt").write_text(f"{line}\n")
    lock = lock_of(root)
    assert [resolve_requirement_folder(source, root) for source in lock.sources] == [root / "libs" / "mine"]
    assert "click" in {package.name for package in lock.packages}


def test_a_wheel_by_its_name_alone_is_no_package_of_an_index(tmp_path):
    wheel = pack_wheel(
        tmp_path, "mine", "1", {"mine.py": b"", "mine-1.dist-info/METADATA": b"Name: mine\nVersion: 1\n"}
    )
    (tmp_path / "requirements.txt").write_text(f"{wheel.name}\n")
    assert [resolve_requirement_folder(source, tmp_path) for source in lock_of(tmp_path).sources] == [wheel]
    assert "mine" not in locked(tmp_path)


def test_files_in_subfolders_are_included_however_they_are_written(tmp_path):
    (tmp_path / "of base").mkdir()
    (tmp_path / "requirements.txt").write_text('-r "of base/base.txt"  # quoted\n-c https://example.org/all.txt\n')
    (tmp_path / "of base" / "base.txt").write_text("click\n--constraint=../constraints.txt\n")
    (tmp_path / "constraints.txt").write_text("click<8.2\n")
    assert read_declared_requirements(tmp_path, Image(), "3.11").text.endswith("../constraints.txt\nclick<8.2\n")
    (tmp_path / "constraints.txt").unlink()
    with pytest.raises(BundleError, match=r"base\.txt includes \.\./constraints\.txt, which does not exist"):
        read_declared_requirements(tmp_path, Image(), "3.11")


def test_an_empty_variable_in_an_indexs_url_leaves_the_error_readable(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("TOKEN", "")
    (tmp_path / "requirements.in").write_text("pandas\n")
    image = Image(index_url="http://me:${TOKEN}@127.0.0.1:9/simple")
    with pytest.raises(BundleError, match=r"^Resolving: http://127\.0\.0\.1:9/simple/pandas/: Connection refused"):
        run_uv(["pip", "compile", "requirements.in"], folder=tmp_path, image=image, activity="Resolving")
