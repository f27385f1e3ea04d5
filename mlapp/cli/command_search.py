"""Finds the command that a user may have meant, in any group of commands."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

UNKNOWN_COMMAND = re.compile(r"No such command '([^']+)'")


def list_similar_commands(error: Any) -> list[str]:
    """Commands elsewhere in the tree that fit an error of click, such as `mlapp models promote`.

    They have the name of an unknown command; if there is none, a similar name. For an argument too many after
    `mlapp promote`, they have the name of this command.
    """
    if error.ctx is None:
        return []
    commands = dict(_iterate_commands(error.ctx.find_root().command, "mlapp"))
    if unknown := UNKNOWN_COMMAND.search(error.message):
        names = [unknown[1]]
        if unknown[1] not in commands.values():
            if "Did you mean" in error.message:  # click found a similar one in the same group
                return []
            names = difflib.get_close_matches(unknown[1], sorted(set(commands.values())), n=1)
    elif "extra argument" in error.message and error.ctx.command_path == f"mlapp {error.ctx.info_name}":
        names = [error.ctx.info_name]
    else:
        return []
    return [path for path, name in commands.items() if name in names and path != error.ctx.command_path]


def _iterate_commands(group: Any, path: str) -> Iterator[tuple[str, str]]:
    """The path and the name of each command below a group."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _iterate_commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", name
