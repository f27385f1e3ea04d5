"""Completes the commands in an error, so that they work as printed: `mlapp status` without `--target` asks for one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from mlapp.errors import MlappError

FLAGS = {"--target": "-t", "--namespace": "-n", "--context": None, "--env": None}
"""The flags that say which deployment a command is about, with their short forms."""
COMMAND = re.compile(r"\bmlapp (?:status|logs|releases|rollback|promote|abort|delete)\b(?![^`\n]*--target)")


def complete_advised_commands(error: MlappError, arguments: Sequence[str]) -> MlappError:
    """The error, whose commands repeat the target, namespace, context and environment of the command that failed.

    Args:
        arguments: the command line of the failed command.
    """
    flags = format_place_flags(_find_place_flags(arguments))
    if not flags:
        return error
    return MlappError(*(COMMAND.sub(lambda match: match[0] + flags, text) for text in (error.what, error.todo)))


def format_place_flags(flags: Mapping[str, str | None]) -> str:
    """The flags with a value, as they follow a command: ` --target k8s --namespace team-a`."""
    return "".join(f" {flag} {shlex.quote(value)}" for flag, value in flags.items() if value is not None)


def _find_place_flags(arguments: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for at, argument in enumerate(arguments):
        name, is_joined, value = argument.partition("=")
        flag = next((flag for flag, short in FLAGS.items() if name in (flag, short)), None)
        if flag is not None and (is_joined or at + 1 < len(arguments)):
            found[flag] = value if is_joined else arguments[at + 1]
    return found
