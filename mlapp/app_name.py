"""Reads the App's name from source code without running it, so that commands work while the code is broken."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlapp import notebook_source
from mlapp.errors import ProjectError

PLAIN = re.compile(
    r"^(?P<variable>\w+)[ \t]*(?::[^=\n]+)?=[ \t]*(?:\w+\.)?App\("
    r"""\s*(?:name\s*=\s*)?(?P<quote>["'])(?P<name>[^"'\n]+)(?P=quote)""",
    re.MULTILINE,
)
"""`app = App("name"` at the start of a line, for a source that does not parse."""


def read_app_name(path: Path, variable: str = "") -> str | None:
    """The name in the only `variable = App("name", …)` of a file; None if it is not a literal or not unique.

    Args:
        path: a Python file or a notebook.
        variable: the App's variable; any variable when empty.
    """
    try:
        text = notebook_source.read_code_cells(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ProjectError):
        return None
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        names = [match["name"] for match in PLAIN.finditer(text) if variable in ("", match["variable"])]
    else:
        names = list(_find_app_names(body, variable))
    return names[0] if len(names) == 1 else None


def _find_app_names(body: Sequence[ast.stmt], variable: str) -> Iterator[str | None]:
    """The name of each App that a module's statements assign; None for a computed name."""
    constants: dict[str, str] = {}
    aliases = {"App"}
    for node in _iterate_import_statements(body):
        if isinstance(node, ast.ImportFrom):
            aliases |= {each.asname for each in node.names if each.name == "App" and each.asname}
        value, targets = _find_app_name_assignment(node)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            constants.update(dict.fromkeys(targets, value.value))
        if isinstance(value, ast.Call) and (not variable or variable in targets):
            called = value.func
            if (called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")) in aliases:
                yield _read_app_name_argument(value, constants)


def _iterate_import_statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, including those in `if`, `try` and `with`."""
    for node in body:
        yield node
        for part in ("body", "handlers", "orelse", "finalbody"):
            inner = getattr(node, part, [])
            if isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
                yield from _iterate_import_statements(inner)


def _find_app_name_assignment(node: ast.stmt) -> tuple[ast.expr | None, list[str]]:
    """The value of an assignment, and the names it is assigned to."""
    if isinstance(node, ast.Assign):
        return node.value, [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.value, [node.target.id]
    return None, []


def _read_app_name_argument(call: ast.Call, constants: dict[str, str]) -> str | None:
    keywords = (keyword.value for keyword in call.keywords if keyword.arg == "name")
    value = call.args[0] if call.args else next(keywords, None)
    if isinstance(value, ast.Name):
        return constants.get(value.id)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
