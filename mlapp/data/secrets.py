"""Reads secrets in addresses from the environment, and hides them in all output.

`${DB_PASSWORD}` in an address is looked up when data is read, never when the app is declared. In errors, logs and a
reader's docstring, `***` replaces the password of an address, and names of variables replace their values.
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

# Match up to the last @, because a password without percent-encoding can contain any character. `host:8080/a@b` has no
# password.
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
    """An address with its secrets filled in.

    Attributes:
        value: the address with secrets, for connecting.
        display_name: the address for messages, without secrets; also the result of `str`.
        hidden: each secret with its replacement.
    """

    value: str = field(repr=False)
    display_name: str
    hidden: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def __str__(self) -> str:
        return self.display_name

    def hide_secrets(self, text: object) -> str:
        """Replace this address's secrets in a text, such as a library's error."""
        plain = str(text)
        for secret, replacement in self.hidden:
            plain = plain.replace(secret, replacement)
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
    # If a variable holds a whole URL, its host and user are not secret. Other values always are.
    whole = filled if REFERENCE.fullmatch(template) and "://" in filled else template
    for match in (match for rule in _RULES for match in rule.finditer(filled)):
        secret = match["secret"]
        # A library that parses an address incorrectly quotes parts of it.
        pieces = (piece for piece in re.split(r"[/:@?#]", secret) if piece != secret and len(piece) > 1)
        hidden.update(dict.fromkeys((secret, unquote(secret), *pieces), HIDDEN))
    # Replace the longest first, because a secret can contain another one.
    ordered = sorted(hidden.items(), key=lambda pair: -len(pair[0]))
    return Address(filled, redact_secrets(whole), tuple(ordered))


def redact_secrets(text: str) -> str:
    """Replace passwords and tokens in URLs, and the values of `password=`, `access_key=` and the like, with `***`."""
    for rule in _RULES:
        text = rule.sub(rf"\g<before>{HIDDEN}", text)
    return text
