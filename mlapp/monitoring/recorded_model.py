"""What monitoring needs to know of a model that answers. The server's `ServedModel` has these members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mlapp.baseline import Baseline


class RecordedModel(Protocol):
    """A model whose predictions are recorded."""

    @property
    def version(self) -> str | None:
        """The version as text; None for a model that is not stored."""

    @property
    def feature_names(self) -> list[str]:
        """The names of the features, in order."""

    @property
    def baseline(self) -> Baseline | None:
        """The baseline of its training data; None if the version has none."""

    def strip_parts(self, parts: Sequence[Any]) -> Sequence[Any]:
        """The features of several requests in few objects, for `combine_stripped`."""

    def combine_stripped(self, parts: list[Any]) -> Any:
        """The features of stripped parts of one or more batches as one table, array or list."""
