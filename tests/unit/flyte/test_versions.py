"""The cache version changes with what a function calls in the project, and with nothing else."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from mlapp.flyte.code_fingerprint import compute_code_cache_version, compute_code_registration_version
from mlapp.provenance import GitState

APP = """
import dataclasses
import datetime
import enum
import helpers
import steps.rows
from helpers import clean
SCALE = 2
BEGIN = datetime.date(2026, 1, 1)

class Kind(enum.Enum):
    PLAIN = 1

@dataclasses.dataclass
class Limits:
    low: int = 0

LIMITS = Limits(low=3)
UNUSED = 1

class Scaler:
    def __call__(self, x):
        return x * SCALE

scaler = Scaler()

def decorate(**options):
    return lambda function: function

def never_called(x):
    return x

@decorate(memory="1Gi")
@helpers.shifted
def train(x):
    # a comment
    import lazy
    if BEGIN and LIMITS.low and Kind.PLAIN:
        return scaler(clean(helpers.double(x))) + lazy.one() + steps.rows.count(x)
"""
HELPERS = """
import functools

def clean(x):
    return x

def double(x):
    return 2 * x  # doubled

def shifted(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) + 7
    return wrapper
"""
FILES = {
    "app.py": APP,
    "helpers.py": HELPERS,
    "steps/__init__.py": "",
    "steps/rows.py": "def count(x):\n    return len(x)\n",
    "other.py": "def other():\n    return 1\n",
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
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(textwrap.dedent(changed))
        sys.path.insert(0, str(root))
        try:
            import app

            return compute_code_cache_version([app.train], root)
        finally:
            sys.path.remove(str(root))
            for name in ("app", "helpers", "lazy", "steps", "steps.rows"):
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
        ("steps/rows.py", "len(x)", "len(x) + 1"),
        ("helpers.py", "+ 7", "+ 8"),  # a decorator of the project's
        ("app.py", "low=3", "low=4"),
        ("app.py", "2026, 1, 1", "2026, 1, 2"),
        ("app.py", "PLAIN = 1", "PLAIN = 2"),
    ]
    versions = [version(*change) for change in changes]
    assert len({plain, *versions}) == len(changes) + 1


@pytest.mark.parametrize(
    "change",
    [
        ("app.py", "# a comment", "# another"),
        ("app.py", "1Gi", "8Gi"),
        ("app.py", "UNUSED = 1", "UNUSED = 2"),
        ("app.py", "x):\n    return x\n", "x):\n    return -x\n"),
        ("helpers.py", "# doubled", "# twice"),
        ("other.py", "return 1", "return 2"),
    ],
)
def test_comments_options_and_what_is_not_called_do_not_count(
    version: Callable[..., str], change: tuple[str, str, str]
) -> None:
    assert version() == version(*change)


def test_declared_values_count(tmp_path: Path) -> None:
    target, other = (compute_code_cache_version([len], tmp_path, (name, {"format": None})) for name in ("y", "z"))
    assert target != other == compute_code_cache_version([len], tmp_path, ("z", {"format": None}))


def test_a_registration_is_named_by_code_image_and_settings() -> None:
    version = compute_code_registration_version("code", "image", {"project": "a"}, GitState("0" * 40, False))
    assert version == compute_code_registration_version("code", "image", {"project": "a"}, None)
    assert version != compute_code_registration_version("code", "image:2", {"project": "a"}, None)
    assert (
        compute_code_registration_version("code", "image", {"project": "a"}, GitState("0" * 40, True))
        == f"{version}-dirty"
    )
