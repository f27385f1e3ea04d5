"""Secrets in addresses: taken from the environment where they are used, and kept out of everything that is shown.

`${DB_PASSWORD}` in an address is looked up when data is read, never when the app is declared. What is shown of an
address (an error, a log, a reader's docstring) has `***` for its password, and the variable's name for its value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from mlapp.errors import DataError

HIDDEN = "***"

_VARIABLE = re.compile(r"\$\{(\w+)\}")
# Up to the last @: a password that was not percent-encoded may hold any character. `host:8080/a@b` has none.
_PASSWORD = re.compile(r"(?P<before>://[^:/?#@\s]*:)(?!\d+[/?#])(?P<secret>\S+)(?=@)")
_TOKEN = re.compile(r"(?P<before>\bhttps?://)(?P<secret>[^:/?#@\s]+)(?=@)", re.IGNORECASE)
"""A token instead of a user, as Git hosts and package indexes accept it."""
_SETTING = re.compile(
    r"(?P<before>(?:^|(?<=[?&;#,\s({\['\"]))"
    r"(?:(?:[\w.-]*[_.-])?sig|[\w.-]*(?:password|passwd|pwd|passphrase|secret|token(?!s|iz)|signature|credential"
    r"|account_?key|api_?key|access_?key(?:_?id)?|private_?key))"
    r"[\w.-]*(?:\s?=\s?|['\"]\s?[:=]\s?)['\"]?)"
    r"(?P<secret>[^&#;,\s'\"]+)",
    re.IGNORECASE,
)


_RULES = (_PASSWORD, _TOKEN, _SETTING)


@dataclass(frozen=True)
class Address:
    """An address with its secrets filled in. Only `shown` may be printed; `repr` and `str` say nothing else."""

    value: str = field(repr=False)
    shown: str
    hidden: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def __str__(self) -> str:
        return self.shown

    def hide_secrets(self, text: object) -> str:
        """The text of a library's error, say, without any of this address's secrets."""
        plain = str(text)
        for secret, instead in self.hidden:
            plain = plain.replace(secret, instead)
        return redact_secrets(plain)


def expand_address(template: str, environ: Mapping[str, str] | None = None) -> Address:
    """Fill in each `${NAME}` from the environment (`os.environ` when absent).

    A value that stands between `://` and `@` is percent-encoded, so that a password may hold any character.

    Raises:
        DataError: a variable is not set, or is empty.
    """
    environ = os.environ if environ is None else environ
    hidden: dict[str, str] = {}

    def read_variable(match: re.Match[str]) -> str:
        name = match[1]
        value = environ.get(name)
        if not value:
            raise DataError(
                f"{redact_secrets(template)} needs the environment variable {name}, which is not set.",
                f"Set it before the command: export {name}=…",
            )
        is_user_or_password = "://" in template[: match.start()] and "@" in template[match.end() :]
        filled = quote(value, safe="") if is_user_or_password else value
        hidden.update({value: f"${{{name}}}", filled: f"${{{name}}}"})
        return filled

    filled = _VARIABLE.sub(read_variable, template)
    # A whole address tells the host and the user; what is no address tells nothing that could be shown.
    whole = filled if _VARIABLE.fullmatch(template) and "://" in filled else template
    for found in (match for rule in _RULES for match in rule.finditer(filled)):
        secret = found["secret"]
        # A library that reads an address wrongly quotes a piece of it.
        pieces = (piece for piece in re.split(r"[/:@?#]", secret) if piece != secret and len(piece) > 1)
        hidden.update(dict.fromkeys((secret, unquote(secret), *pieces), HIDDEN))
    # The longest first: a secret may hold another one.
    ordered = sorted(hidden.items(), key=lambda pair: -len(pair[0]))
    return Address(filled, redact_secrets(whole), tuple(ordered))


def redact_secrets(text: str) -> str:
    """The text with `***` for each URL's password or token, and for each `password=`, `access_key=` and the like."""
    for rule in _RULES:
        text = rule.sub(rf"\g<before>{HIDDEN}", text)
    return text
