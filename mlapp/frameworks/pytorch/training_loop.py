"""The default training loop: epochs of shuffled batches, with early stopping and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlapp.errors import DataError, ModelError, UsageError
from mlapp.frameworks import arrays, threads
from mlapp.frameworks.epochs import EpochSettings, require_valid_epoch_parameters
from mlapp.frameworks.pytorch import tensors
from mlapp.frameworks.pytorch.checkpoint import Checkpoint, TrainingState
from mlapp.progress import report

SMALL = 50_000_000
"""Number of multiplications per batch below which a single thread is the fastest, as threads wait for each other."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(EpochSettings):
    """The settings of a training with AdamW.

    Attributes:
        device: `cpu`, `cuda`, `cuda:1` or `mps`; `auto` selects CUDA or Apple's GPU if available, otherwise the CPU.
    """

    weight_decay: float
    device: str


def describe_training_settings(settings: TrainingSettings) -> str:
    """The settings as a text, by which the checkpoint of an interrupted training is found."""
    # Another order or name would start trainings over that an earlier mlapp began.
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "validation", "patience", "device", "seed")
    values = ", ".join(f"{name}={getattr(settings, name)!r}" for name in (*names, "checkpoint_every"))
    return f"TrainingSettings({values})"


@dataclass(frozen=True)
class _TrainingTask:
    """The objects that each epoch uses.

    Attributes:
        inputs: the features as a tensor, with one row per row of the features.
        targets: the target as a tensor, with one row per row of the features.
        compute_loss: returns the mean loss of outputs and targets.
        generator: draws the order of the rows.
    """

    model: Any
    inputs: Any
    targets: Any
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
    """Train the module with cross-entropy for classes, or the mean squared error for numbers.

    Returns:
        The module on the CPU, with the weights of the best epoch.

    Raises:
        DataError: no target, or features that are missing or not numbers. ModelError: the loss is not a number, or a
            checkpoint is damaged. UsageError: the device is not available.
    """
    import torch

    device = _choose_training_device(settings.device)
    multiplications = settings.batch_size * sum(weights.numel() for weights in model.parameters())
    torch.set_num_threads(1 if multiplications < SMALL else threads.count_thread_cores())
    if target is None:
        raise DataError("The default trainer for PyTorch needs a target.", "Write an @app.trainer for this module.")
    inputs = tensors.features_to_tensor(features)
    arrays.require_finite_feature_array(inputs.cpu().float().numpy(), features)
    model.to(device)
    targets, labels = tensors.target_to_tensor(target, _count_training_loop_outputs(model, inputs, device))
    compute_loss = torch.nn.functional.cross_entropy if labels is not None else _compute_squared_training_error
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(settings.seed)
    training_rows, held_out_rows = _split_training_loop_rows(len(inputs), settings, generator)
    task = _TrainingTask(model, inputs, targets, settings, optimizer, compute_loss, generator)

    checkpoint = Checkpoint.for_training(model, inputs, targets, describe_training_settings(settings))
    state = checkpoint.read_training_state(model, optimizer, generator) or TrainingState()
    last_checkpoint = time.monotonic()
    while state.epoch < settings.epochs and state.stale < settings.patience:
        state.epoch += 1
        loss = _train_epoch(task, training_rows, state.epoch)
        losses = {"loss": loss}
        if len(held_out_rows):
            losses["val_loss"] = _compute_training_loss(task, held_out_rows)
        _update_training_state(state, model, losses.get("val_loss", loss))
        report(state.epoch, settings.epochs, **losses)
        if time.monotonic() - last_checkpoint >= settings.checkpoint_every:
            checkpoint.write_training_state(model, optimizer, generator, state)
            last_checkpoint = time.monotonic()
    if state.best:
        model.load_state_dict(state.best)
    checkpoint.remove_checkpoint()
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
    total, row_count = 0.0, 0
    batches = rows[torch.randperm(len(rows), generator=task.generator)].split(settings.batch_size)
    for number, batch in enumerate(batches, 1):
        if len(batch) == 1 and len(batches) > 1:  # batch normalization cannot learn from one row
            continue
        task.optimizer.zero_grad()
        loss = task.compute_loss(model(task.inputs[batch].to(device)), task.targets[batch].to(device))
        value = loss.item()
        if value != value or value == float("inf"):
            raise ModelError(
                f"The loss became {value} in epoch {epoch}, batch {number}.",
                f"Lower learning_rate (it is {settings.learning_rate:g}), or scale the features to similar ranges.",
            )
        loss.backward()
        task.optimizer.step()
        total, row_count = total + value * len(batch), row_count + len(batch)
    return total / max(row_count, 1)


def _compute_training_loss(task: _TrainingTask, rows: Any) -> float:
    outputs = tensors.compute_pytorch_output_tensors(task.model, task.inputs[rows])
    return float(task.compute_loss(outputs, task.targets[rows]))


def _update_training_state(state: TrainingState, model: Any, loss: float) -> None:
    """Keep the weights of the best epoch, and count the epochs since."""
    if loss < state.best_loss:
        state.best_loss, state.stale = loss, 0
        state.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
    else:
        state.stale += 1


def _compute_squared_training_error(outputs: Any, targets: Any) -> Any:
    from torch.nn.functional import mse_loss

    return mse_loss(outputs.reshape(targets.shape), targets)


def _split_training_loop_rows(rows: int, settings: EpochSettings, generator: Any) -> tuple[Any, Any]:
    """The indexes of the training rows and of the held-out rows."""
    import torch

    held_out_count = settings.count_held_out_rows(rows)
    order = torch.randperm(rows, generator=generator)
    return order[held_out_count:], order[:held_out_count]


def _count_training_loop_outputs(model: Any, inputs: Any, device: Any) -> int:
    """The number of outputs per row, from a call with the first two rows."""
    import torch

    model.eval()
    with torch.inference_mode():
        try:
            outputs = model(inputs[:2].to(device))
        except RuntimeError as error:
            raise ModelError(
                f"The module cannot take features of the shape {list(inputs.shape)}: {error}",
                "Build a module for that many columns, or reshape the features in a feature_transformer.",
            ) from error
    return int(outputs.shape[1]) if outputs.ndim > 1 else 1


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
