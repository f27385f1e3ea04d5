"""Checkpoint files and parameter checks that the default trainers of neural networks share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlapp.errors import UsageError

CHECKPOINTS = Path(".mlapp/checkpoints")
"""Folder of checkpoints, in the project's folder. Can be deleted at any time: interrupted trainings then start over."""


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
