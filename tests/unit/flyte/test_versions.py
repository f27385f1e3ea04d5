"""The cache version changes with what a function calls in the project, and with nothing else."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp.environment import GitState
from mlapp.flyte.versions import cache_version, registration_version

APP = """
import helpers
from helpers import clean
SCALE = 2

class Scaler:
    def __call__(self, x):
        return x * SCALE

scaler = Scaler()

def decorate(**options):
    return lambda function: function

@decorate(memory="1Gi")
def train(x):
    # a comment
    import lazy
    return scaler(clean(helpers.double(x))) + lazy.one()
"""
FILES = {
    "app.py": APP,
    "helpers.py": "def clean(x):\n    return x\n\ndef double(x):\n    return 2 * x\n",
    "lazy.py": "def one():\n    return 1\n",
}


@pytest.fixture
def version(tmp_path: Path) -> Callable[..., str]:
    """The cache version of `train` when a text in a file of the project is another."""
    runs = iter(range(100))

    def of(file: str = "app.py", old: str = "", new: str = "") -> str:
        root = tmp_path / f"project{next(runs)}"
        root.mkdir()
        for name, text in FILES.items():
            changed = text.replace(old, new) if name == file and old else text
            assert changed != text or name != file or not old
            (root / name).write_text(textwrap.dedent(changed))
        sys.path.insert(0, str(root))
        try:
            import app

            return cache_version([app.train], root)
        finally:
            sys.path.remove(str(root))
            for name in ("app", "helpers", "lazy"):
                sys.modules.pop(name, None)

    return of


def test_it_covers_what_the_function_calls(version: Callable[..., str]) -> None:
    plain = version()
    assert version() == plain
    changes = [
        ("app.py", "+ lazy", "- lazy"),
        ("app.py", "SCALE = 2", "SCALE = 3"),
        ("app.py", "x * SCALE", "x + SCALE"),
        ("helpers.py", "return x\n", "return x + 1\n"),
        ("helpers.py", "2 * x", "3 * x"),
        ("lazy.py", "return 1", "return 2"),
    ]
    found = [version(*change) for change in changes]
    assert len({plain, *found}) == len(changes) + 1


def test_comments_and_options_do_not_count(version: Callable[..., str]) -> None:
    assert version() == version("app.py", "# a comment", "# another") == version("app.py", "1Gi", "8Gi")


def test_a_registration_is_named_by_code_image_and_settings() -> None:
    version = registration_version("code", "image", {"project": "a"}, GitState("0" * 40, False))
    assert version == registration_version("code", "image", {"project": "a"}, None)
    assert version != registration_version("code", "image:2", {"project": "a"}, None)
    assert registration_version("code", "image", {"project": "a"}, GitState("0" * 40, True)) == f"{version}-dirty"
