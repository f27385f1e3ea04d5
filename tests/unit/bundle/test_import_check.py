"""Imports that an image could not satisfy are named before it is built; nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlapp.app_location import locate_app
from mlapp.bundle.import_check import find_unlocked_imports

LOCKED = {"numpy", "pandas", "scikit-learn"}


def find(root: Path, **files: str) -> list[str]:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(find_unlocked_imports(root, locate_app("app.py", root), LOCKED))


def test_a_module_without_a_locked_package_is_named_with_its_line(tmp_path):
    [warning] = find(tmp_path, app="import pandas\nimport os\nimport yaml\nimport yaml.nodes\n")
    assert warning == (
        "app.py:3 imports 'yaml', which the image does not contain: pyyaml is not in the project's requirements. "
        "Add it there."
    )


def test_the_projects_own_modules_are_followed(tmp_path):
    package = tmp_path / "src" / "tools"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import httpx\n")
    own = {"shop__features": "from sklearn import svm\nimport yaml\n"}
    warnings = find(tmp_path, app="from shop import features\nimport tools\n", unused="import requests\n", **own)
    assert [warning.partition(",")[0] for warning in warnings] == [
        "shop/features.py:2 imports 'yaml'",
        "src/tools/__init__.py:1 imports 'httpx'",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    import yaml\nexcept ImportError:\n    yaml = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import yaml\n",
        "def read():\n    import yaml\n",
        "import a_module_of_no_package\n",
        "from __future__ import annotations\nimport sys, tomllib\n",
        "import mlapp\nfrom mlapp import App\n",
        "import sklearn.linear_model as linear\n",
        "from .yaml import nodes\n",
        "import (\n",
    ],
)
def test_what_may_be_fine_gives_no_warning(tmp_path, source):
    assert find(tmp_path, app=source) == []


def test_another_build_of_a_package_covers_its_module(tmp_path):
    """The image can have xgboost where this machine has xgboost-cpu, and onnxruntime-gpu instead of onnxruntime."""
    (tmp_path / "app.py").write_text("import xgboost\nimport onnxruntime\n")
    location = locate_app("app.py", tmp_path)
    assert len(list(find_unlocked_imports(tmp_path, location, set()))) == 2
    assert list(find_unlocked_imports(tmp_path, location, {"xgboost", "onnxruntime-gpu"})) == []


def test_a_module_of_the_project_with_the_name_of_a_package_is_its_own(tmp_path):
    assert find(tmp_path, app="import yaml\n", yaml="x = 1\n") == []


def test_a_src_folder_without_packages_holds_no_modules(tmp_path):
    """The server does not search it either."""
    assert len(find(tmp_path, app="import yaml\n", src__yaml="x = 1\n")) == 1
