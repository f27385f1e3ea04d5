"""The commands in the documentation exist, with the options that it gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mlapp.cli.commands import cli

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted(ROOT.glob("docs/**/*.md")) if page.parent.name != "decisions"),
]
IN_CODE = re.compile(r"^(?:\s{4,}|\$ )?(?:\S*/)?(mlapp [a-z-].*)$")
IN_TEXT = re.compile(r"`(mlapp [a-z-][^`\n]*)`")
COMMANDS: Any = typer.main.get_command(cli)


def find_commands(text: str) -> Iterator[str]:
    """The calls of mlapp in blocks of code, and between backticks."""
    in_fence = False
    for line in text.splitlines():
        in_fence ^= line.lstrip().startswith("```")
        if in_fence or line.startswith("    "):
            yield from IN_CODE.findall(line)
        else:
            yield from IN_TEXT.findall(line)


def find_options(command: str) -> tuple[Any, list[str]]:
    """The command that `mlapp …` calls, and the options given to it."""
    words = re.split(r" (?:&&|\||>|#) ?|  +|…", command)[0].split()[1:]
    node = COMMANDS
    while words and hasattr(node, "commands") and words[0] in node.commands:
        node = node.commands[words.pop(0)]
    return node, [word.partition("=")[0].strip("[]") for word in words if re.match(r"\[?--?[a-zA-Z]", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_documented_command_and_option_exists(page: Path) -> None:
    for command in find_commands(page.read_text(encoding="utf-8")):
        node, options = find_options(command)
        known = {"--help", "--debug", "-C", "--version", "--install-completion"}
        known |= {option for each in node.params for option in (*each.opts, *each.secondary_opts)}
        assert not set(options) - known, f"{page.name}: {command}"
