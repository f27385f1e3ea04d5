"""Settings, parameter checks and checkpoint files that the default trainers of neural networks share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.errors import UsageError

CHECKPOINTS = Path(".mlapp/checkpoints")
"""Folder of checkpoints, in the project's folder. Can be deleted at any time: interrupted trainings then start over."""
MIN_ROWS_TO_HOLD_OUT = 20
"""With fewer rows, no rows are held out for early stopping."""


@dataclass(frozen=True, kw_only=True)
class EpochSettings:
    """The settings of a training in epochs.

    Attributes:
        epochs: maximum passes over the data.
        batch_size: rows per step of the optimizer.
        learning_rate: of AdamW. A Keras model that is compiled keeps its own optimizer.
        validation: share of the rows held out for early stopping; with 0, the training loss decides.
        patience: epochs without a better loss before training stops. The weights of the best epoch are kept.
        seed: of the shuffling and of the held-out rows.
        checkpoint_every: seconds between checkpoints. A training that was killed continues from the last one when it
            runs again with the same data, model and settings.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    validation: float
    patience: int
    seed: int
    checkpoint_every: float

    def count_held_out_rows(self, rows: int) -> int:
        """The number of rows to hold out for early stopping."""
        return round(rows * self.validation) if rows >= MIN_ROWS_TO_HOLD_OUT else 0


@contextmanager
def replace_epoch_checkpoint(file: Path) -> Iterator[Path]:
    """A path to write a checkpoint to. It atomically replaces `file` at the end of the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def require_valid_epoch_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the range of a trainer's parameters; missing parameters are skipped.

    Raises:
        UsageError: names the first parameter that is out of range.
    """
    for name in ("epochs", "batch_size", "patience"):
        count = parameters.get(name, 1)
        if count < 1:
            raise UsageError(f"{name} is {count}; it must be 1 or more.", f"Give it as -p {name}=10.")
    for name in ("learning_rate", "weight_decay", "checkpoint_every"):
        amount = parameters.get(name)
        if amount is not None and not amount >= 0:
            raise UsageError(f"{name} is {amount:g}; it must be 0 or more.", f"Give it as -p {name}=0.001.")
    share = parameters.get("validation", 0.0)
    if not 0 <= share < 1:
        raise UsageError(
            f"validation is {share:g}; it must be a fraction of the rows.",
            "Give it as -p validation=0.1, from 0 to below 1.",
        )
