"""Stores the state of a PyTorch training on disk, so that a training that was killed can continue."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import ModelError
from mlapp.frameworks.epochs import CHECKPOINTS, replace_epoch_checkpoint


@dataclass
class TrainingState:
    """The progress of a training.

    Attributes:
        epoch: number of completed epochs.
        stale: number of epochs since the best one.
        best: the weights of the best epoch.
    """

    epoch: int = 0
    best_loss: float = math.inf
    stale: int = 0
    best: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """One safetensors file, named by module, data and settings, and written atomically."""

    file: Path

    @classmethod
    def for_training(cls, model: Any, inputs: Any, targets: Any, settings: str) -> Checkpoint:
        """The checkpoint of one training, in the current folder's `.mlapp`."""
        digest = hashlib.sha256(f"{model}{settings}".encode())
        # Includes the initial weights: training from a version differs from training from scratch.
        for tensor in (inputs, targets, *model.state_dict().values()):
            digest.update(str(tuple(tensor.shape)).encode())
            if tensor.numel():
                digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).numpy()).cast("B"))
        return cls(CHECKPOINTS / f"{digest.hexdigest()[:24]}.safetensors")

    def write_training_state(self, model: Any, optimizer: Any, generator: Any, state: TrainingState) -> None:
        """Replace the stored state.

        Raises:
            OSError: the disk is full.
        """
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in state.best.items()}
        for at, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{at}.{name}": value for name, value in values.items()}
        tensors["generator"] = generator.get_state()
        record = {"epoch": state.epoch, "best_loss": state.best_loss, "stale": state.stale}
        with replace_epoch_checkpoint(self.file) as temporary:
            # safetensors refuses weights that modules share, so each entry is a copy.
            copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
            save_file(copies, temporary, {"state": msgspec.json.encode(record).decode()})

    def read_training_state(self, model: Any, optimizer: Any, generator: Any) -> TrainingState | None:
        """Load the checkpoint, if it exists, into the module, the optimizer and the generator.

        Raises:
            ModelError: it is truncated or damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not self.file.is_file():
            return None
        try:
            with safe_open(self.file, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                record = msgspec.json.decode(opened.metadata()["state"])
        except (SafetensorError, TypeError, KeyError) as error:
            raise ModelError(
                f"The checkpoint {self.file} is truncated or damaged: {error}",
                f"Delete it to train from the beginning: rm {self.file}",
            ) from error
        optimizer_state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, at, key = name.split(".", 2)
                optimizer_state.setdefault(int(at), {})[key] = value
        model.load_state_dict(_strip_checkpoint_prefix("model.", tensors))
        optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state})
        generator.set_state(tensors["generator"])
        best_loss = math.inf if record["best_loss"] is None else record["best_loss"]
        return TrainingState(record["epoch"], best_loss, record["stale"], _strip_checkpoint_prefix("best.", tensors))

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint after the training."""
        self.file.unlink(missing_ok=True)


def _strip_checkpoint_prefix(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
