"""Patterns of paths: `**` crosses folders, `*` and `?` do not. Python 3.13 and newer has `glob.translate` for it."""

from __future__ import annotations

import re

_WILDCARDS = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])")
_TRANSLATED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def compile_path_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for the full paths that match a pattern."""
    return re.compile("".join(map(_translate_pattern_part, _WILDCARDS.split(pattern))))


def _translate_pattern_part(part: str) -> str:
    if part.startswith("[") and part.endswith("]"):
        return part.replace("[!", "[^", 1)
    return _TRANSLATED.get(part) or re.escape(part)
