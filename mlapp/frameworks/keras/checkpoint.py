"""Stores the state of a Keras training on disk, so that a training that was killed can continue."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mlapp.errors import ModelError
from mlapp.frameworks.epochs import CHECKPOINTS, replace_epoch_checkpoint


@dataclass(frozen=True)
class TrainingState:
    """The progress of a training: completed epochs, and the state of `EarlyStopping`."""

    epoch: int = 0
    best: float | None = None
    wait: int = 0
    best_epoch: int = 0
    best_weights: list[Any] | None = None


@dataclass
class Checkpoint:
    """One file of arrays in NumPy's format `.npz`, named by model, data and settings, and written atomically.

    Keras's own `BackupAndRestore` does not store the state of early stopping.

    Attributes:
        every: minimum seconds between writes.
    """

    file: Path
    every: float
    _written: float = field(default_factory=time.monotonic)

    @classmethod
    def for_training(cls, keras: Any, model: Any, arrays: Sequence[Any], settings: object, every: float) -> Checkpoint:
        """The checkpoint of one training of a built model, in the current folder's `.mlapp`."""
        digest = hashlib.sha256(f"{_describe_keras_model(keras, model)}{settings}".encode())
        # Includes the initial weights: training from a version differs from training from scratch.
        for array in (*arrays, *model.get_weights()):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return cls(CHECKPOINTS / f"{digest.hexdigest()[:24]}.npz", every)

    def read_training_state(self, model: Any) -> TrainingState:
        """Load the checkpoint, if it exists, into the model and its optimizer.

        Raises:
            ModelError: it is truncated or damaged.
        """
        import numpy as np

        if not self.file.is_file():
            return TrainingState()
        try:
            with np.load(self.file, allow_pickle=False) as opened:
                arrays = {name: opened[name] for name in opened.files}
            record = msgspec.json.decode(arrays.pop("state").tobytes())
            for at, variable in enumerate(_list_keras_training_variables(model)):
                variable.assign(arrays[f"model.{at}"])
            best = [arrays[f"best.{at}"] for at in range(record.pop("weights"))]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, msgspec.DecodeError) as error:
            raise ModelError(
                f"The checkpoint {self.file} is truncated or damaged: {error}",
                f"Delete it to train from the beginning: rm {self.file}",
            ) from error
        return TrainingState(**record, best_weights=best or None)

    def write_training_state(self, model: Any, state: TrainingState) -> None:
        """Replace the stored state, if the interval has passed.

        Raises:
            OSError: the disk is full.
        """
        import keras
        import numpy as np

        if time.monotonic() - self._written < self.every:
            return
        best = state.best_weights or []
        record = {"epoch": state.epoch, "best": state.best, "wait": state.wait, "best_epoch": state.best_epoch}
        arrays = {
            f"model.{at}": keras.ops.convert_to_numpy(variable)
            for at, variable in enumerate(_list_keras_training_variables(model))
        }
        arrays |= {f"best.{at}": np.asarray(weights) for at, weights in enumerate(best)}
        arrays["state"] = np.frombuffer(msgspec.json.encode({**record, "weights": len(best)}), np.uint8)
        with replace_epoch_checkpoint(self.file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        self._written = time.monotonic()

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint after the training."""
        self.file.unlink(missing_ok=True)


def make_checkpoint_callback(
    keras: Any, checkpoint: Checkpoint, stopper: Any, state: TrainingState, epochs: int, seed: int
) -> Any:
    """A callback for `fit` that writes the checkpoint after an epoch.

    Args:
        stopper: the `EarlyStopping` callback. It must run before this one.
        new_state: the state to continue from.
    """

    class CheckpointCallback(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_begin(self, logs: Any = None) -> None:
            stopper.best, stopper.wait, stopper.best_epoch = state.best, state.wait, state.best_epoch
            stopper.best_weights = state.best_weights

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            # Draw the same random numbers in an epoch, even if the previous one ran in another process.
            keras.utils.set_random_seed(seed + epoch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch + 1 < epochs and not self.model.stop_training:
                best = None if stopper.best is None else float(stopper.best)
                new_state = TrainingState(epoch + 1, best, stopper.wait, stopper.best_epoch, stopper.best_weights)
                checkpoint.write_training_state(self.model, new_state)

    return CheckpointCallback()


def _list_keras_training_variables(model: Any) -> list[Any]:
    """The variables that training changes: weights, random generators of layers, and the optimizer's; no metrics."""
    metric_variables = {id(variable) for metric in model.metrics for variable in metric.variables}
    own = [variable for variable in model.variables if id(variable) not in metric_variables]
    return [*own, *model.optimizer.variables]


def _describe_keras_model(keras: Any, model: Any) -> str:
    """The model's configuration as text, as far as possible."""
    try:
        return msgspec.json.encode(keras.saving.serialize_keras_object(model)).decode()
    except (TypeError, ValueError, NotImplementedError, msgspec.MsgspecError):
        return f"{type(model).__module__}.{type(model).__qualname__}"
