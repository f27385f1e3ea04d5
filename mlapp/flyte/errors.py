"""Errors between mlapp and Flyte."""

from __future__ import annotations

from mlapp.errors import MlappError


class FlyteError(MlappError):
    """Flyte refused a request, or failed."""


class UnreachableError(FlyteError):
    """Flyte does not answer. A later request may succeed."""


class RunFailedError(FlyteError):
    """A run failed. `trace` is the traceback of the user's own function, or empty."""

    def __init__(self, what: str, todo: str, trace: str = "") -> None:
        super().__init__(what, todo)
        self.trace = trace
