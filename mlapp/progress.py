"""Training progress: reported by trainers, received by the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report: `step` of `steps` (None if unknown), counted from 1, and its metrics."""

    step: int
    steps: int | None
    metrics: Mapping[str, float]

    def __str__(self) -> str:
        measured = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
        return f"{self.step}{f' of {self.steps}' if self.steps else ''}{measured}"


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def report(step: int, steps: int | None = None, **metrics: float) -> None:
    """Report the progress of a trainer: `report(epoch, epochs, loss=0.3)`. Costs nothing without a listener.

    During a parameter search, a call can raise an exception to end a trial that is worse than the others:
    do not catch it.
    """
    listener = _listener.get()
    if listener is not None:
        listener(Progress(step, steps, {name: float(value) for name, value in metrics.items()}))


@contextmanager
def listen_progress(listener: Listener) -> Iterator[None]:
    """Receive the reports of trainings in this block. An outer listener receives them too."""
    outer = _listener.get()

    def report_to_both(progress: Progress) -> None:
        listener(progress)
        if outer is not None:
            outer(progress)

    token = _listener.set(report_to_both)
    try:
        yield
    finally:
        _listener.reset(token)
