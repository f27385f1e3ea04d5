"""A caller's values in the path that an app's author wrote: each is a name in its place, and never another place.

The author's `${NAME}` is expanded first. A value is then filled in as it is: `${…}` in it stays text, `*` matches
itself, and `..`, an absolute path or another scheme is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from mlapp.data.secrets import Address, expand_address
from mlapp.errors import UsageError

NAME = re.compile(r"(?<!\$)\{(\w+)\}")
"""A parameter in a path; `${NAME}` is a variable of the environment."""

_WILD = re.compile(r"[*?\[]")
_MARK = re.compile("\0(\\w+)\0")
"""A parameter's place while variables are expanded: no variable of the environment can hold it."""


def fill_path(template: str, parameters: Mapping[str, Any]) -> Address:
    """The address that a path means, with its variables from the environment and its parameters filled in.

    Raises:
        UsageError: a value would lead elsewhere.
        DataError: a variable is not set.
    """
    address = expand_address(NAME.sub("\0\\1\0", template))
    texts = {name: str(value) for name, value in parameters.items()}
    for name, text in texts.items():
        _refuse_other_place(name, text)
    value = address.value
    while found := _MARK.search(value):
        value = (
            value[: found.start()] + _in_place(found[1], texts[found[1]], value[: found.start()]) + value[found.end() :]
        )
    return replace(address, value=value, shown=_MARK.sub(lambda found: texts[found[1]], address.shown))


def _refuse_other_place(name: str, text: str) -> None:
    parts = text.split("/")
    is_name = text and "://" not in text and "\\" not in text and text.isprintable() and not text.startswith("~")
    if not is_name or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{name}={text!r} is no name in a path.",
            "Give a name without '..', '//', '\\', and without '/' at its ends. For other places, write a reader.",
        )


def _in_place(name: str, text: str, before: str) -> str:
    """A value as its place in the address needs it: percent-encoded on the web, else with wildcards made plain.

    Args:
        before: the address up to the value.
    """
    scheme, separator, rest = before.partition("://")
    is_first = bool(separator) and "/" not in rest  # a host or a bucket
    if is_first and "/" in text:
        raise UsageError(f"{name}={text!r} holds a '/', where a single name belongs.", "Give a name without '/'.")
    if separator and scheme in ("http", "https"):
        return quote(text, safe="" if is_first or "?" in rest or "#" in rest else "/")
    return _WILD.sub(lambda found: r"[\[]" if found[0] == "[" else f"[{found[0]}]", text)
