"""Tells a function that replaces an earlier one, as in a notebook cell that runs again, from a second function."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any


def is_defined_in_file(frame: FrameType) -> bool:
    """Whether the code of a frame is in a Python file and not in a cell of a notebook."""
    file = Path(frame.f_code.co_filename)
    return "__file__" in frame.f_globals and file.suffix == ".py" and file.is_file()


def is_redefinition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether a function replaces an older one: the same function after a reload, or from a cell that ran again.

    Two functions in one file are different even if they have the same name.
    """
    first, second = _get_pipeline_definition_code(old), _get_pipeline_definition_code(new)
    if first is None or second is None:
        return has_same_pipeline_definition(old, new)
    if not _is_definition_file(second.co_filename):
        return getattr(old, "__module__", "") == getattr(new, "__module__", "")
    if first.co_filename != second.co_filename or not has_same_pipeline_definition(old, new):
        return False
    return first.co_firstlineno == second.co_firstlineno or not {
        first.co_firstlineno,
        second.co_firstlineno,
    } <= _find_pipeline_definition_lines(second.co_filename, second.co_name)


def has_same_pipeline_definition(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether two functions have the same name in the same module."""
    return _get_definition_key(old) == _get_definition_key(new)


def _get_definition_key(function: Callable[..., Any]) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))


def _get_pipeline_definition_code(function: Callable[..., Any]) -> CodeType | None:
    bare = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(bare, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _is_definition_file(name: str) -> bool:
    return name.endswith(".py") and Path(name).is_file()


def _find_pipeline_definition_lines(file: str, name: str) -> set[int]:
    """The lines at which functions of a name begin in the current file."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            lines.add(min([node.lineno, *(each.lineno for each in node.decorator_list)]))
        elif isinstance(node, ast.Lambda) and name == "<lambda>":
            lines.add(node.lineno)
    return lines
