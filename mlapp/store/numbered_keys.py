"""Keys with a number for their name, such as `000003.json`."""

from __future__ import annotations

from collections.abc import Iterable


def parse_version_numbers(names: Iterable[str]) -> set[int]:
    """The numbers of the names that have one."""
    return {int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()}
