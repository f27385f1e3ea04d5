"""No message loses its second line: without parentheses, a string on a line of its own is no part of the one above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mlapp

PACKAGE = Path(mlapp.__file__).parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BODIES = ("body", "orelse", "finalbody")


def find_lost_strings(source: str) -> Iterator[int]:
    """The lines of strings in functions that are neither a docstring nor the description of an attribute above."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    documented = {id(node.body[0]) for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
    for node in {id(node): node for function in functions for node in ast.walk(function)}.values():
        for block in (getattr(node, name, None) for name in BODIES):
            above: ast.stmt | None = None
            for statement in block if isinstance(block, list) else ():
                if id(statement) not in documented and is_lost_string(statement, above):
                    yield statement.lineno
                above = statement


def is_lost_string(statement: ast.stmt, above: ast.stmt | None) -> bool:
    if not isinstance(statement, ast.Expr):
        return False
    if isinstance(statement.value, ast.JoinedStr):
        return True
    is_text = isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    targets = above.targets if isinstance(above, ast.Assign) else [getattr(above, "target", None)]
    return is_text and not any(
        isinstance(node, ast.Attribute) for target in targets if target for node in ast.walk(target)
    )


def test_no_string_is_cut_off_from_its_message() -> None:
    lost = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in find_lost_strings(path.read_text(encoding="utf-8"))
    ]
    assert not lost


def test_a_cut_message_is_found() -> None:
    assert list(
        find_lost_strings('def f():\n    """F."""\n    self.x = 1\n    """X."""\n    return "a "\n    "b"')
    ) == [6]
    assert list(find_lost_strings('def f(a):\n    text = f"{a} "\n    f"{a}"\n    return text')) == [3]
