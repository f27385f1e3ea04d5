"""Secrets in addresses: read from the environment on use, and hidden in all output.

`${DB_PASSWORD}` in an address is looked up when data is read, never when the app is declared. In errors, logs and a
reader's docstring, an address has `***` instead of its password, and variable names instead of their values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from mlapp.env_vars import REFERENCE
from mlapp.errors import DataError

HIDDEN = "***"

# Up to the last @, because a password that is not percent-encoded can contain any character. `host:8080/a@b` has none.
_PASSWORD = re.compile(r"(?P<before>://[^:/?#@\s]*:)(?!\d+[/?#])(?P<secret>\S+)(?=@)")
_TOKEN = re.compile(r"(?P<before>\bhttps?://)(?P<secret>[^:/?#@\s]+)(?=@)", re.IGNORECASE)
"""A token instead of a user name, as Git hosts and package indexes accept it."""
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
    """An address with its secrets filled in. Only `shown` may be printed; `repr` and `str` show only that."""

    value: str = field(repr=False)
    shown: str
    hidden: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def __str__(self) -> str:
        return self.shown

    def hide_secrets(self, text: object) -> str:
        """A text, such as a library's error, without this address's secrets."""
        plain = str(text)
        for secret, instead in self.hidden:
            plain = plain.replace(secret, instead)
        return redact_secrets(plain)


def expand_secrets_in_address(template: str, environ: Mapping[str, str] | None = None) -> Address:
    """Fill in each `${NAME}` from the environment (by default `os.environ`).

    Values between `://` and `@` are percent-encoded, so that a password can contain any character.

    Raises:
        DataError: a variable is not set or is empty.
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

    filled = REFERENCE.sub(read_variable, template)
    # If a variable is a whole URL, its host and user can be shown; nothing of any other value can be.
    whole = filled if REFERENCE.fullmatch(template) and "://" in filled else template
    for found in (match for rule in _RULES for match in rule.finditer(filled)):
        secret = found["secret"]
        # A library that misparses an address quotes parts of it.
        pieces = (piece for piece in re.split(r"[/:@?#]", secret) if piece != secret and len(piece) > 1)
        hidden.update(dict.fromkeys((secret, unquote(secret), *pieces), HIDDEN))
    # Longest first, because a secret can contain another one.
    ordered = sorted(hidden.items(), key=lambda pair: -len(pair[0]))
    return Address(filled, redact_secrets(whole), tuple(ordered))


def redact_secrets(text: str) -> str:
    """The text with `***` for passwords and tokens in URLs, and for values of `password=`, `access_key=`, …"""
    for rule in _RULES:
        text = rule.sub(rf"\g<before>{HIDDEN}", text)
    return text
