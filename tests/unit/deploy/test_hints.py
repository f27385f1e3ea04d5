"""What a message tells the user to set or to run exists: settings of every target, commands, and their flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.main import get_command

import mlapp
from mlapp.cli.commands import cli
from mlapp.config import Section
from mlapp.deploy import target_names
from mlapp.deploy.cluster.cluster_target import ClusterTarget
from mlapp.deploy.cluster.server_target import ServerTarget
from mlapp.deploy.target import find_target_class

ROOT = Path(mlapp.__file__).parent
TARGETS = {name: find_target_class(name) for name in target_names()}
CLUSTER = [name for name, target in TARGETS.items() if issubclass(target, ClusterTarget)]
AWS = ["lambda", "sagemaker"]
SETTING = re.compile(r"targets\.([a-z0-9]+)\.([a-z_]+(?:\.[a-z_]+)*)")
ANY_SETTING = re.compile(r"(?:targets\.<[^>]*>|<[^>]*section[^>]*>|<SECTION>)\.([a-z_]+(?:\.[a-z_]+)*)")


@cache
def list_texts() -> list[tuple[Path, str]]:
    """Every text in the code of targets and commands, with `<expression>` for what is filled in."""
    found = []
    for path in sorted([*(ROOT / "deploy").rglob("*.py"), *(ROOT / "aws_lambda").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((path, node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = [each.value if isinstance(each, ast.Constant) else f"<{ast.unparse(each.value)}>"
                         for each in node.values]  # fmt: skip
                found.append((path, "".join(map(str, parts))))
    return found


@cache
def list_users(path: Path) -> list[str]:
    """The targets whose messages a module writes."""
    folder = path.parent.name
    if folder in (*CLUSTER, *AWS):
        return [folder]
    if folder in ("aws", "aws_lambda"):
        return AWS if folder == "aws" else ["lambda"]
    imported = f"cluster.{path.stem} import"
    shared = {each.stem for each in (ROOT / "deploy" / "cluster").glob("*.py") if imported in each.read_text()}
    if shared == {"server_target"}:
        return [name for name in CLUSTER if issubclass(TARGETS[name], ServerTarget)]
    if shared:
        return CLUSTER
    sources = {name: "".join(each.read_text() for each in (ROOT / "deploy" / name).glob("*.py")) for name in CLUSTER}
    return [name for name, source in sources.items() if imported in source] or CLUSTER


@cache
def has_setting(section: type[Section], path: str) -> bool:
    """Whether a section has the setting of a path; below a mapping there may be anything."""
    kinds: list[Any] = [msgspec.inspect.type_info(section)]
    for name in path.split("."):
        structs = [kind for kind in map_kinds(kinds) if isinstance(kind, msgspec.inspect.StructType)]
        if not structs:
            return any(isinstance(kind, msgspec.inspect.DictType) for kind in map_kinds(kinds))
        kinds = [field.type for struct in structs for field in struct.fields if field.encode_name == name]
        if not kinds:
            return False
    return True


def map_kinds(kinds: list[Any]) -> Iterator[Any]:
    """The kinds within unions and metadata."""
    for kind in kinds:
        if isinstance(kind, msgspec.inspect.Metadata):
            yield from map_kinds([kind.type])
        elif isinstance(kind, msgspec.inspect.UnionType):
            yield from map_kinds(list(kind.types))
        else:
            yield kind


def test_every_setting_that_a_message_names_exists() -> None:
    wrong = []
    found = 0
    for path, text in list_texts():
        named = [(name, rest) for name, rest in SETTING.findall(text) if name in TARGETS]
        named += [(name, rest) for rest in ANY_SETTING.findall(text) for name in list_users(path)]
        for name, rest in named:
            found += 1
            if not has_setting(TARGETS[name].settings_type, rest):
                wrong.append(f"{path.relative_to(ROOT)}: targets.{name}.{rest}, in: {text[:100]}")
    assert wrong == []
    assert found > 40


def test_every_command_that_a_message_names_exists() -> None:
    commands: Any = get_command(cli)
    flags = {flag for target in TARGETS.values() for flag in target.flags_type.__struct_fields__}
    wrong = []
    found = 0
    for path, text in list_texts():
        for match in re.finditer(r"`mlapp ([^`]*)`", text):
            words = match[1].split()
            command = commands
            while words and hasattr(command, "commands") and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            asked = {word.partition("=")[0] for word in words if word.startswith("--")}
            found += 1
            is_known = command is not commands and not hasattr(command, "commands")
            if not is_known or asked - known - {f"--{flag.replace('_', '-')}" for flag in flags} - {"--target"}:
                wrong.append(f"{path.relative_to(ROOT)}: mlapp {match[1]}")
    assert wrong == []
    assert found > 40


@pytest.mark.parametrize("name", CLUSTER)
def test_a_quota_names_settings_of_its_target(name: str) -> None:
    from mlapp.deploy.cluster.api_errors import make_api_error
    from mlapp.deploy.cluster.connection import SIZE_SETTINGS, Connection

    kind = TARGETS[name].settings_type
    sizes = tuple(each for each in SIZE_SETTINGS if each in kind.__struct_fields__)
    connection = Connection(None, "team-a", "context kind", f"targets.{name}", sizes)
    words = "pods is forbidden: exceeded quota: compute, requested: cpu=4, used: cpu=7, limited: cpu=10"
    error = make_api_error(403, words, "create", "Pod/digits", connection)
    assert "exceeds the namespace's quota 'compute': requested: cpu=4" in error.what
    named = SETTING.findall(error.todo)
    assert named
    assert all(has_setting(kind, rest) for _, rest in named)
