"""The training loop: epochs of shuffled batches, a share of rows held out for early stopping, checkpoints to resume."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlapp.errors import DataError, ModelError, UsageError
from mlapp.frameworks import arrays, threads
from mlapp.frameworks.epochs import require_valid_epoch_parameters
from mlapp.frameworks.pytorch import tensors
from mlapp.frameworks.pytorch.checkpoint import Checkpoint, TrainingState
from mlapp.progress import report

FEW = 20
"""With fewer rows none is held out."""
SMALL = 50_000_000
"""Multiplications of one batch below which one thread is the fastest: threads would wait for each other."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of a training.

    Attributes:
        epochs: maximum passes over the data.
        validation: share of the rows held out for early stopping; 0 stops by the training loss.
        patience: epochs without a better loss before training stops. The best epoch's weights are kept.
        device: `auto` selects CUDA or Apple's GPU if available; otherwise `cpu`, `cuda`, `cuda:1`, `mps`.
        seed: of the shuffling and of the rows held out.
        checkpoint_every: seconds between checkpoints. A killed training that runs again with the same
            data, module and settings continues from the last one.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    validation: float
    patience: int
    device: str
    seed: int
    checkpoint_every: float


@dataclass(frozen=True)
class _TrainingTask:
    """What each epoch uses.

    Attributes:
        inputs: a tensor with a row for each row of the features.
        wanted: the target of each row.
        compute_loss: the mean loss of outputs and targets.
        generator: draws the order of the rows.
    """

    model: Any
    inputs: Any
    wanted: Any
    settings: TrainingSettings
    optimizer: Any
    compute_loss: Any
    generator: Any


def check_training_loop_settings(parameters: Mapping[str, Any]) -> None:
    """Check the settings before the data is read.

    Raises:
        UsageError: a number out of bounds, or an unavailable device.
    """
    require_valid_epoch_parameters(parameters)
    if "device" in parameters:
        _choose_training_device(parameters["device"])


def run_training_loop(model: Any, features: Any, target: Any, settings: TrainingSettings) -> Any:
    """Train the module; cross-entropy for classes, the mean squared error for numbers.

    Raises:
        DataError: features are missing or not numbers. ModelError: the loss is not a number; a damaged checkpoint.
        UsageError: a device that is not there.
    """
    import torch

    device = _choose_training_device(settings.device)
    work = settings.batch_size * sum(weights.numel() for weights in model.parameters())
    torch.set_num_threads(1 if work < SMALL else threads.count_thread_cores())
    if target is None:
        raise DataError("The default trainer for PyTorch needs a target.", "Write an @app.trainer for this module.")
    inputs = tensors.features_to_tensor(features)
    arrays.require_finite_feature_array(inputs.cpu().float().numpy(), features)
    model.to(device)
    wanted, labels = tensors.target_to_tensor(target, _count_training_loop_outputs(model, inputs, device))
    compute_loss = torch.nn.functional.cross_entropy if labels is not None else _compute_squared_training_error
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    learned, held_out = _split_training_loop_rows(len(inputs), settings.validation, generator)
    task = _TrainingTask(model, inputs, wanted, settings, optimizer, compute_loss, generator)

    checkpoint = Checkpoint.for_training(model, inputs, wanted, settings)
    state = checkpoint.read_state(model, optimizer, generator) or TrainingState()
    written = time.monotonic()
    while state.epoch < settings.epochs and state.stale < settings.patience:
        state.epoch += 1
        loss = _train_epoch(task, learned, state.epoch)
        measured = {"loss": loss}
        if len(held_out):
            measured["val_loss"] = _compute_training_loss(task, held_out)
        _update_training_state(state, model, measured.get("val_loss", loss))
        report(state.epoch, settings.epochs, **measured)
        if time.monotonic() - written >= settings.checkpoint_every:
            checkpoint.write_state(model, optimizer, generator, state)
            written = time.monotonic()
    if state.best:
        model.load_state_dict(state.best)
    checkpoint.remove_file()
    model.labels = labels
    return model.to("cpu").eval()


def _train_epoch(task: _TrainingTask, rows: Any, epoch: int) -> float:
    """Run one epoch over the rows; returns their mean loss.

    Raises:
        ModelError: the loss is not a number.
    """
    import torch

    model, settings = task.model, task.settings
    device = next(model.parameters()).device
    model.train()
    total, seen = 0.0, 0
    batches = rows[torch.randperm(len(rows), generator=task.generator)].split(settings.batch_size)
    for number, batch in enumerate(batches, 1):
        if len(batch) == 1 and len(batches) > 1:  # batch normalization cannot learn from one row
            continue
        task.optimizer.zero_grad()
        loss = task.compute_loss(model(task.inputs[batch].to(device)), task.wanted[batch].to(device))
        value = loss.item()
        if value != value or value == float("inf"):
            raise ModelError(
                f"The loss became {value} in epoch {epoch}, batch {number}.",
                f"Lower learning_rate (it is {settings.learning_rate:g}), or scale the features to similar ranges.",
            )
        loss.backward()
        task.optimizer.step()
        total, seen = total + value * len(batch), seen + len(batch)
    return total / max(seen, 1)


def _compute_training_loss(task: _TrainingTask, rows: Any) -> float:
    outputs = tensors.compute_pytorch_output_tensors(task.model, task.inputs[rows])
    return float(task.compute_loss(outputs, task.wanted[rows]))


def _update_training_state(state: TrainingState, model: Any, loss: float) -> None:
    """Keep the weights of the best epoch, and count the epochs since."""
    if loss < state.best_loss:
        state.best_loss, state.stale = loss, 0
        state.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
    else:
        state.stale += 1


def _compute_squared_training_error(outputs: Any, wanted: Any) -> Any:
    from torch.nn.functional import mse_loss

    return mse_loss(outputs.reshape(wanted.shape), wanted)


def _split_training_loop_rows(rows: int, share: float, generator: Any) -> tuple[Any, Any]:
    """The indexes of the training rows and of the held-out rows."""
    import torch

    held_out = round(rows * share) if rows >= FEW else 0
    order = torch.randperm(rows, generator=generator)
    return order[held_out:], order[:held_out]


def _count_training_loop_outputs(model: Any, inputs: Any, device: Any) -> int:
    """The number of outputs per row, from a call with the first two rows."""
    import torch

    model.eval()
    with torch.inference_mode():
        try:
            tried = model(inputs[:2].to(device))
        except RuntimeError as error:
            raise ModelError(
                f"The module cannot take features of the shape {list(inputs.shape)}: {error}",
                "Build a module for that many columns, or reshape the features in a feature_transformer.",
            ) from error
    return int(tried.shape[1]) if tried.ndim > 1 else 1


def _choose_training_device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The device '{name}' cannot be used here: {reason}",
            "Leave out the parameter device, or give -p device=cpu.",
        ) from error
    return device
