"""Collects the features of one body, which is decoded in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlapp.schema.part import Part

if TYPE_CHECKING:
    from mlapp.serving.decoding.codec import Codec


class Parts:
    """The features of the parts of one body that are decoded so far."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._parts: list[Part] = []
        self.rows = 0

    def add(self, part: Part) -> None:
        """Add the next part. Its cells are not kept as Python objects."""
        self.rows += part.rows
        self._keep(part if part.tuples is None else Part(part.rows, features=self._codec.combine_parts([part])))

    def join(self) -> Part:
        """The features of all parts."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        if all(part.packed is not None for part in parts):
            return Part(self.rows, b"".join([part.packed or b"" for part in parts]))
        return Part(self.rows, features=self._codec.combine_parts(parts))

    def _keep(self, part: Part) -> None:
        self._parts.append(part)
