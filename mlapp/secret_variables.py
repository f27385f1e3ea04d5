"""Recognizes secrets in plain text: in environment variables by name and value, in URLs by their form."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlapp.errors import ConfigError

NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|API_?KEYS?|ACCESS_KEY(_ID)?|SECRET_KEY|PRIVATE_KEY|ACCOUNT_KEY"
    r"|CREDENTIALS?)$",
    re.IGNORECASE,
)
"""The end of a secret variable's name: it matches `DB_PASSWORD`, but not `PASSWORD_FILE` or `TOKEN_LIMIT`."""

PLAIN = re.compile(r"(true|false|yes|no|on|off|none|null|\d+(\.\d+)?|/.*|\$\{.*)?", re.IGNORECASE)
"""Values that are never secret: a switch, a number, a path, a reference."""

PASSWORD_IN_URL = re.compile(
    r"[A-Za-z0-9]://[^\s/@:'\"<>]*:"
    r"(?![{<*]|\$[{(A-Z_]|%(?![0-9A-Fa-f]{2}))"  # a placeholder: {}, <password>, ***, ${NAME}, $NAME, %s, %(name)s
    r"[^\s/@'\"<>]+@[\w\[{$]"
)
"""A password in plain text in a URL, such as DATABASE_URL or a package index."""


def is_secret_variable(name: str, value: str) -> bool:
    """Whether an environment variable looks like a secret."""
    if PASSWORD_IN_URL.search(value):
        return True
    return NAME.search(name) is not None and PLAIN.fullmatch(value) is None


def refuse_secret_variables(place: str, variables: Mapping[str, str], where: str, todo: str) -> None:
    """Refuse variables that look like secrets.

    Args:
        place: the setting of the variables in mlapp.yaml, such as `image.env`.
        where: where they would be readable, such as "in the image".
        todo: what to do; `{name}` stands for the first variable's name.

    Raises:
        ConfigError: names each variable, without its value.
    """
    names = [name for name, value in variables.items() if is_secret_variable(name, str(value))]
    if names:
        listing = ", ".join(f"{place}.{name}" for name in names)
        verb = "looks" if len(names) == 1 else "look"
        raise ConfigError(
            f"{listing} {verb} like a secret, and would be stored {where} in plain text.",
            todo.replace("{name}", names[0]),
        )
