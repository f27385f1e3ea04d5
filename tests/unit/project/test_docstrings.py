"""Where a docstring names code as `module.name` or `Class.name`, a reader finds that code."""

from __future__ import annotations

import re
from pathlib import Path

import mlapp

PACKAGE = Path(mlapp.__file__).parent
REFERENCE = re.compile(r"`(?:\w+\.)*(\w+)\.(\w+)(?:\(\))?`")
CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
DEFINITION = re.compile(r"^ *(?:(?:async )?def |class )?(\w+)(?=[(:]| =)", re.MULTILINE)
IMPORT = re.compile(r"^ *from mlapp.* import (.*)", re.MULTILINE)


def test_docstrings_name_code_that_exists() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    definitions = {path: set(DEFINITION.findall(source)) for path, source in sources.items()}
    members = set().union(*definitions.values())  # of any class: a base class can have it
    classes = {name for source in sources.values() for name in CLASS.findall(source)}
    modules: dict[str, set[str]] = {}
    for path, names in definitions.items():
        modules.setdefault(path.stem, set()).update(names)
    stale, checked = [], 0
    for path, source in sources.items():
        imported = set(re.findall(r"\w+", " ".join(IMPORT.findall(source)))) & modules.keys()
        for owner, name in REFERENCE.findall(source):
            if owner in classes | imported:
                checked += 1
                if name not in (members if owner in classes else modules[owner]):
                    stale.append(f"{path.relative_to(PACKAGE)}: {owner}.{name}")
    assert checked
    assert not stale
