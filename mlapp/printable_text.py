"""Makes texts from data, models, stores and clients printable, because their characters could control a terminal."""

from __future__ import annotations

import logging
import re

CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tabs and line ends, and C1
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions: https://trojansource.codes
    r"\u2028\u2029\ufeff\U000e0000-\U000e007f"  # line ends and invisible characters
    r"\ud800-\udfff]"  # halves of surrogate pairs, which no stream can encode
)
LOG_FORMAT = "%(levelname)s: %(message)s"


def make_printable(text: str) -> str:
    r"""A text in which control characters are written as `\x1b` or `\u202e`. Tabs and line ends stay."""
    return CONTROLS.sub(lambda match: _escape_character(match[0]), text)


def make_printable_line(text: str) -> str:
    """A printable text on one line."""
    return make_printable(" ".join(line.strip() for line in text.splitlines() if line.strip()))


def make_printable_json(text: str) -> str:
    r"""JSON with the same content, in which control characters are written as `\u001b`."""
    return CONTROLS.sub(lambda match: _escape_json_character(match[0]), text)


class PrintableFormatter(logging.Formatter):
    """Formats log records, whose arguments and tracebacks can be texts from data."""

    def format(self, record: logging.LogRecord) -> str:
        return make_printable(super().format(record))


def set_up_logging(form: str = LOG_FORMAT) -> None:
    """Log to stderr, unless the program has set up logging: INFO of mlapp, and warnings of libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("mlapp").setLevel(logging.INFO)


def _escape_character(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_json_character(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
