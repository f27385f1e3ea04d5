"""The default training of Keras models: early stopping, checkpoints, and a loss that fits the target."""

from __future__ import annotations

from typing import Any

from mlapp.errors import DataError, ModelError
from mlapp.frameworks import arrays
from mlapp.frameworks.epochs import EpochSettings
from mlapp.frameworks.keras import checkpoint as checkpoints
from mlapp.progress import report


def fit_keras_model(model: Any, features: Any, target: Any, settings: EpochSettings) -> list[Any] | None:
    """Fit a model in place. Returns the labels of a target of classes, in the order of the model's outputs.

    A model that is not compiled gets AdamW and a loss for its target: cross-entropy for classes (binary for one
    sigmoid), the mean squared error for numbers.

    Raises:
        DataError: no target, or features that are missing or not numbers. ModelError: the loss is not a number, or the
            model does not fit the data.
    """
    import keras
    import numpy as np

    if target is None:
        raise DataError("The default trainer for Keras needs a target.", "Write an @app.trainer for this model.")
    inputs = arrays.features_to_array(features)
    arrays.require_finite_feature_array(inputs, features)
    set_keras_threads(1)
    keras.utils.set_random_seed(settings.seed)
    first_outputs = try_keras_model(model, inputs[:32])
    targets, labels = _encode_keras_target(model, target, first_outputs)
    if not model.compiled:
        model.compile(keras.optimizers.AdamW(settings.learning_rate), _choose_keras_loss(keras, first_outputs, labels))
    model.optimizer.build(model.trainable_variables)
    checkpoint = checkpoints.Checkpoint.for_training(
        keras, model, (inputs, targets), _list_result_settings(settings), settings.checkpoint_every
    )
    state = checkpoint.read_training_state(model)
    order = np.random.default_rng(settings.seed).permutation(len(inputs))
    held_out_count = settings.count_held_out_rows(len(inputs))
    held_out_rows, training_rows = order[:held_out_count], order[held_out_count:]
    stopper = keras.callbacks.EarlyStopping(
        "val_loss" if held_out_count else "loss", mode="min", patience=settings.patience, restore_best_weights=True
    )
    try:
        model.fit(
            inputs[training_rows],
            targets[training_rows],
            validation_data=(inputs[held_out_rows], targets[held_out_rows]) if held_out_count else None,
            epochs=settings.epochs,
            initial_epoch=state.epoch,
            batch_size=settings.batch_size,
            verbose=0,
            callbacks=[
                _make_keras_progress_callback(keras, settings.epochs),
                stopper,
                checkpoints.make_checkpoint_callback(keras, checkpoint, stopper, state, settings.epochs, settings.seed),
            ],
        )
    except ValueError as error:
        raise ModelError(
            f"Keras cannot train the model on this data: {shorten_keras_reason(error)}",
            "Pass a loss that fits the target to compile(), or do not call compile().",
        ) from error
    checkpoint.remove_checkpoint()
    return labels


def _list_result_settings(settings: EpochSettings) -> tuple[float, ...]:
    """The settings that change the result, so that a checkpoint is only valid for equal ones."""
    return (
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        settings.validation,
        settings.patience,
        settings.seed,
    )


def set_keras_threads(count: int) -> None:
    """Set the number of threads. Only the PyTorch backend can change it at run time."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(count)


def try_keras_model(model: Any, inputs: Any) -> Any:
    """The model's output for some rows. Builds the model if necessary."""
    try:
        return model.predict_on_batch(inputs)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"The model cannot take features of the shape {list(inputs.shape)}: {shorten_keras_reason(error)}",
            "Build a model for that many columns, or reshape the features in a feature_transformer.",
        ) from error


def _encode_keras_target(model: Any, target: Any, first_outputs: Any) -> tuple[Any, list[Any] | None]:
    """The target as numbers, and its labels if it is a class. A model that ends in one sigmoid has two classes.

    Args:
        first_outputs: the model's output for some rows.
    """
    import numpy as np

    outputs = int(first_outputs.shape[1]) if first_outputs.ndim > 1 else 1
    values = np.asarray(target)
    activation = getattr(model.layers[-1], "activation", None)
    if outputs == 1 and getattr(activation, "__name__", "") == "sigmoid" and values.dtype.kind != "f":
        labels, codes = np.unique(values.ravel(), return_inverse=True)
        if len(labels) > 2:
            raise ModelError(
                f"The target has {len(labels)} classes, but the model ends in one sigmoid.",
                f"Build a model with {len(labels)} outputs in the model function.",
            )
        return codes.astype(np.float32).reshape(-1, 1), labels.tolist()
    return arrays.target_to_array(target, outputs)


def _choose_keras_loss(keras: Any, first_outputs: Any, labels: list[Any] | None) -> Any:
    """The loss for the target. Scores that are not probabilities are logits.

    Args:
        first_outputs: the model's output for some rows.
    """
    if labels is None:
        return keras.losses.MeanSquaredError()
    if first_outputs.ndim == 1 or first_outputs.shape[1] == 1:
        return keras.losses.BinaryCrossentropy()
    is_probability = bool((first_outputs >= 0).all() and (abs(first_outputs.sum(axis=1) - 1) < 1e-3).all())
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not is_probability)


def _make_keras_progress_callback(keras: Any, epochs: int) -> Any:
    """A callback that reports the progress, and stops a training whose loss is not a number."""

    class ProgressCallback(keras.callbacks.Callback):  # type: ignore[misc]
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch + 1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            value = float((logs or {}).get("loss", 0.0))
            if value != value or value == float("inf"):
                raise ModelError(
                    f"The loss became {value} in epoch {self.epoch}, batch {batch + 1}.",
                    "Lower learning_rate, or scale the features to similar ranges.",
                )

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            report(epoch + 1, epochs, **{name: float(value) for name, value in (logs or {}).items()})

    return ProgressCallback()


def shorten_keras_reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
