"""Redacts values by the rules of `monitor.columns` before anything is written: `drop`, `hash` or `round(5)`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from mlapp.baseline.build import to_category_text
from mlapp.baseline.redaction import find_redaction_step, round_to_redaction_step


class ColumnPrivacy:
    """The rules of `monitor.columns`.

    Args:
        app: the app's name. The hashes of two apps differ.
    """

    def __init__(self, columns: Mapping[str, str], app: str) -> None:
        self._columns = columns
        self._key = hashlib.blake2b(app.encode(), digest_size=32).digest()

    def is_dropped(self, column: str) -> bool:
        """Whether a column is dropped."""
        return self._columns.get(column) == "drop"

    def has_rules_for(self, columns: Iterable[str]) -> bool:
        """Whether any of the columns is redacted."""
        return any(column in self._columns for column in columns)

    def redact_values(self, column: str, values: list[Any]) -> list[Any]:
        """The redacted values. Not for a dropped column."""
        rule = self._columns.get(column)
        if rule is None:
            return values
        if rule == "hash":
            return [None if (text := to_category_text(value)) is None else self._hash_text(text) for value in values]
        step = find_redaction_step(self._columns, column)
        assert step is not None, rule
        return [round_to_redaction_step(value, step) for value in values]

    def redact_keys(self, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Redacted business keys."""
        return {name: self.redact_values(name, [value])[0] for name, value in keys.items() if not self.is_dropped(name)}

    def _hash_text(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()
