"""Where a project's requirements come from, and how they are locked."""

import subprocess
import sys

import pytest

from mlapp.bundle import BundleError
from mlapp.bundle.lock import lock, parse
from mlapp.bundle.requirements import declared
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


def locked(root, **options):
    image = options.pop("image", Image())
    settings = {"root": root, "python": "3.11", "image": image, "cache": root / "locks", **options}
    return {package.name: package.version for package in lock(declared(root, image), "idna", {}, **settings)}


def test_a_lock_goes_before_requirements_and_those_before_pyproject(tmp_path):
    assert declared(tmp_path, Image()) is None
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert declared(tmp_path, Image()) is None
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    assert declared(tmp_path, Image()).source == "pyproject.toml"
    (tmp_path / "requirements.txt").write_text("click\n")
    assert declared(tmp_path, Image()).source == "requirements.txt"
    (tmp_path / "pdm.lock").write_text(PDM)
    assert declared(tmp_path, Image()).lines == ("click==8.1.7",)
    (tmp_path / "poetry.lock").write_text(POETRY)
    assert declared(tmp_path, Image()).lines == (
        "click==8.1.7",
        'colorama==0.4.6 ; platform_system == "Windows"',
    )


def test_pyproject_and_its_uv_lock(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace('"click"', '"click<8.2"'))
    assert locked(tmp_path)["click"].startswith("8.1")
    subprocess.run([sys.executable, "-m", "uv", "lock", "--quiet"], cwd=tmp_path, check=True)
    found = declared(tmp_path, Image())
    assert found.source == "uv.lock"
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
    found = {p.name: p.version for p in lock(declared(tmp_path, Image()), "idna", {"click": "8.1.6"}, **options)}
    assert found["click"] == "8.1.6"


def test_a_lock_is_kept_until_its_inputs_change(tmp_path):
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("click\n")
    locked(tmp_path)
    (kept,) = (tmp_path / "locks").iterdir()
    before = kept.stat().st_mtime_ns
    locked(tmp_path)
    assert kept.stat().st_mtime_ns == before
    (tmp_path / "more.txt").write_text("click<8.2\n")
    assert locked(tmp_path)["click"].startswith("8.1")
    assert len(list((tmp_path / "locks").iterdir())) == 2


def test_a_broken_lock_is_named(tmp_path):
    (tmp_path / "poetry.lock").write_text("[[package]\n")
    with pytest.raises(BundleError, match=r"poetry\.lock is not TOML"):
        declared(tmp_path, Image())
    (tmp_path / "poetry.lock").write_text('[[package]]\nname = "x"\nversion = "1"\nsource = {type = "git"}\n')
    with pytest.raises(BundleError, match=r"poetry\.lock: x comes from no package index"):
        declared(tmp_path, Image())


def test_a_locked_file_is_parsed_back():
    numpy = "numpy==2.1 ; platform_machine == 'x86_64' \\\n    --hash=sha256:bb \\\n    --hash=sha256:aa\n"
    text = f"{numpy}idna==3.1 \\\n    --hash=sha256:cc\n"
    numpy, idna = parse(text)
    assert (numpy.name, numpy.version, numpy.hashes) == ("numpy", "2.1", ("aa", "bb"))
    assert str(idna) == "idna==3.1 \\\n    --hash=sha256:cc"
