"""Output of commands: results on stdout, everything else on stderr; progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlapp.cli.result_stream import get_result_stream
from mlapp.errors import MlappError, UsageError
from mlapp.printable_text import make_printable, make_printable_json, make_printable_line

PLAIN = (str, int, float, type(None))
"""Values that stay on one line of JSON."""


def print_note(text: str) -> None:
    """Print a line for the user, on stderr."""
    print(make_printable(text), file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """Print a warning, on stderr."""
    print_note(f"Warning: {text}")


def print_result(text: str) -> None:
    """Print a result for people, on stdout."""
    print(make_printable(text), file=get_result_stream(), flush=True)


def print_text(text: str) -> None:
    """Print a whole file, such as YAML, on stdout, without changes."""
    print(text, end="", file=get_result_stream(), flush=True)


def print_error(error: MlappError) -> None:
    """Print what happened and what to do, on two lines of stderr, without passwords and tokens."""
    from mlapp.data.secrets import redact_secrets

    red, plain = ("\033[31m", "\033[0m") if _has_color_output(sys.stderr) else ("", "")
    print(f"{red}Error:{plain} {make_printable_line(redact_secrets(error.what))}", file=sys.stderr)
    print_note(make_printable_line(error.todo))


def print_json(data: Any) -> None:
    """Print a result for programs, on stdout; a list of plain values stays on one line."""
    import msgspec

    text = msgspec.json.encode(data, enc_hook=str)
    is_plain = isinstance(data, list) and all(isinstance(item, PLAIN) for item in data)
    print_text(make_printable_json((text if is_plain else msgspec.json.format(text)).decode()) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a result for people, on stdout: aligned columns that fit their content."""
    cells = [
        [format_table_cell(value) for value in columns],
        *([format_table_cell(value) for value in row] for row in rows),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    bold, plain = ("\033[1m", "\033[0m") if _has_color_output(get_result_stream()) else ("", "")
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    print_text("\n".join([f"{bold}{lines[0]}{plain}", *lines[1:], ""]))


def print_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a result for a page or a comment, on stdout: a Markdown table."""
    lines = [
        [format_table_cell(value) for value in columns],
        ["---"] * len(columns),
        *([format_table_cell(value) for value in row] for row in rows),
    ]
    print_text("".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines))


def format_table_cell(value: Any) -> str:
    """A value as a printable text on one line."""
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return make_printable(text.replace("\n", "\\n"))


def ask_confirmation(question: str, *, yes: bool) -> None:
    """Ask for confirmation before something is lost; `yes` confirms in advance.

    Raises:
        UsageError: stdin is not a terminal. typer.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            f"This command asks '{question}', but stdin is not a terminal.", "Give --yes to confirm in advance."
        )
    import typer

    typer.confirm(make_printable_line(question), abort=True, err=True)


@contextmanager
def show_progress() -> Iterator[Callable[[str], None]]:
    """Show the steps of a long operation: a spinner on a terminal, one line per step elsewhere."""
    if not sys.stderr.isatty():
        yield lambda text: print_note(f"{text} …")
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(make_printable_line(f"{text} …")))


def _has_color_output(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
