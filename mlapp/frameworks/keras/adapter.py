"""The adapter to Keras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mlapp.errors import DataError, MissingExtraError, ModelError
from mlapp.frameworks import arrays, threads
from mlapp.frameworks.epochs import require_valid_epoch_parameters
from mlapp.frameworks.framework import Framework, cannot_proceed_error
from mlapp.frameworks.keras import checkpoint as checkpoints
from mlapp.progress import report

FILE = "model.keras"
LABELS_FILE = "labels.json"
LABELS = "mlapp_labels"
MIN_ROWS_TO_HOLD_OUT = 20
"""With fewer rows, no rows are held out for early stopping."""
BATCH = 4096
"""Rows per call of the model in prediction."""


class KerasFramework(Framework):
    """A `keras.Model` that takes a batch of numbers and returns a number, or a score for each class, per row.

    The format is described in https://keras.io/api/models/model_saving_apis/. It is read in Keras's safe mode, which
    refuses the code of lambdas. The app chooses the backend before it imports Keras (`KERAS_BACKEND`).
    """

    name: ClassVar[str] = "keras"
    libraries: ClassVar[tuple[str, ...]] = ("keras", "torch", "jax", "tensorflow", "tensorflow-cpu", "numpy")
    formats: ClassVar[tuple[str, ...]] = ("keras",)
    suffixes: ClassVar[tuple[str, ...]] = (".keras",)
    extra: ClassVar[str | None] = "keras"
    trains_from_weights: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "keras")

    def trainer(
        self,
        model: Any,
        features: Any,
        target: Any = None,
        *,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        validation: float = 0.1,
        patience: int = 5,
        seed: int = 0,
        checkpoint_every: float = 30.0,
    ) -> Any:
        """Fit with early stopping, and keep the weights of the best epoch.

        A model that is not compiled gets AdamW and a loss for its target: cross-entropy for classes (binary for one
        sigmoid), the mean squared error for numbers. `learning_rate` applies only to this optimizer.

        Args:
            epochs: maximum passes over the data.
            learning_rate: of AdamW.
            validation: share of the rows held out for early stopping; with 0, the training loss decides.
            patience: epochs without a better loss before training stops.
            seed: of the shuffling and of the held-out rows.
            checkpoint_every: seconds between checkpoints. A training that was killed continues from the last one when
                it runs again with the same data, model and settings.

        Raises:
            DataError: no target, or features that are missing or not numbers. ModelError: the loss is not a number, or
                the model does not fit the data.
        """
        import keras
        import numpy as np

        if target is None:
            raise DataError("The default trainer for Keras needs a target.", "Write an @app.trainer for this model.")
        inputs = arrays.features_to_array(features)
        arrays.require_finite_feature_array(inputs, features)
        _set_keras_threads(1)
        keras.utils.set_random_seed(seed)
        first_outputs = _try_keras_model(model, inputs[:32])
        targets, labels = _encode_keras_target(model, target, first_outputs)
        if not model.compiled:
            model.compile(keras.optimizers.AdamW(learning_rate), _choose_keras_loss(keras, first_outputs, labels))
        model.optimizer.build(model.trainable_variables)
        settings = (epochs, batch_size, learning_rate, validation, patience, seed)
        checkpoint = checkpoints.Checkpoint.for_training(keras, model, (inputs, targets), settings, checkpoint_every)
        state = checkpoint.read_training_state(model)
        order = np.random.default_rng(seed).permutation(len(inputs))
        held_out_count = round(len(inputs) * validation) if len(inputs) >= MIN_ROWS_TO_HOLD_OUT else 0
        held_out_rows, training_rows = order[:held_out_count], order[held_out_count:]
        stopper = keras.callbacks.EarlyStopping(
            "val_loss" if held_out_count else "loss", mode="min", patience=patience, restore_best_weights=True
        )
        try:
            model.fit(
                inputs[training_rows],
                targets[training_rows],
                validation_data=(inputs[held_out_rows], targets[held_out_rows]) if held_out_count else None,
                epochs=epochs,
                initial_epoch=state.epoch,
                batch_size=batch_size,
                verbose=0,
                callbacks=[
                    _make_keras_progress_callback(keras, epochs),
                    stopper,
                    checkpoints.make_checkpoint_callback(keras, checkpoint, stopper, state, epochs, seed),
                ],
            )
        except ValueError as error:
            raise ModelError(
                f"Keras cannot train the model on this data: {_shorten_keras_reason(error)}",
                "Pass a loss that fits the target to compile(), or do not call compile().",
            ) from error
        checkpoint.remove_checkpoint()
        setattr(model, LABELS, labels)
        return model

    def check(self, parameters: Mapping[str, Any]) -> None:  # most trainers take no numbers
        require_valid_epoch_parameters(parameters)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Set the weights of `model` to those of `previous`."""
        _try_keras_model(model, arrays.features_to_array(features)[:2])
        try:
            model.set_weights(previous.get_weights())
        except ValueError as error:
            reason = f"its weights do not fit those of the version: {_shorten_keras_reason(error)}"
            raise cannot_proceed_error(model, reason) from error
        return model

    def classifies(self, model: Any) -> bool:
        return getattr(model, LABELS, None) is not None

    def predictor(self, model: Any, features: Any) -> Any:
        """The label of the best score, or the model's numbers; in batches of 4,096 rows."""
        import numpy as np

        _set_keras_threads(threads.choose_thread_count(len(features)))
        inputs = arrays.features_to_array(features)
        parts = [model.predict_on_batch(inputs[at : at + BATCH]) for at in range(0, len(inputs), BATCH)]
        return arrays.convert_framework_output_array(np.concatenate(parts), getattr(model, LABELS, None))

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        labels = getattr(model, LABELS, None)
        try:
            model.save(folder / FILE)
            _read_keras_model(_import_keras(), folder / FILE)  # safe mode must accept it now, not only in serving
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(
                f"The model, a {type(model).__name__}, cannot be saved so that it can be loaded: "
                f"{_shorten_keras_reason(error)}",
                "Leave Lambda layers out; register your own classes with @keras.saving.register_keras_serializable().",
            ) from error
        if labels is not None:
            (folder / LABELS_FILE).write_text(json.dumps(labels))

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        model = self.load_file(folder / FILE, trusted)
        setattr(model, LABELS, _read_keras_labels(folder / LABELS_FILE))
        return model

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        keras = _import_keras()
        _limit_tensorflow_threads(keras)
        try:
            if file.suffix != ".keras" or not zipfile.is_zipfile(file):  # Keras has other rules for other formats
                raise ValueError("it is not a zip file of Keras 3")
            return _read_keras_model(keras, file)
        except Exception as error:  # Keras, h5py and the backend raise many types
            raise ModelError(
                f"{file} is not a Keras model that can be loaded safely, or is truncated: "
                f"{_shorten_keras_reason(error)}",
                "Train again here, or restore the file.",
            ) from error


def _read_keras_labels(file: Path) -> list[Any] | None:
    """The classes in the order of the model's outputs; None if the file does not exist.

    Raises:
        ModelError: the file is not a list of texts and numbers.
    """
    if not file.is_file():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[bool | int | float | str])
    except msgspec.MsgspecError as error:
        raise ModelError(f"{file} is truncated or damaged: {error}", "Train again here, or restore it.") from error


def _import_keras() -> Any:
    try:
        import keras
    except ImportError as error:
        if error.name in ("tensorflow", "jax", "torch"):
            raise ModelError(
                f"Keras's backend {error.name} is not installed.",
                "Install it, or set KERAS_BACKEND to an installed one in the app, before it imports keras.",
            ) from None
        raise MissingExtraError("Loading Keras models", "keras") from None
    return keras


def _read_keras_model(keras: Any, file: Path) -> Any:
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def _limit_tensorflow_threads(keras: Any) -> None:
    """Limit TensorFlow to the container's cores. Otherwise it starts a thread for each core of the machine."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        with suppress(RuntimeError):  # it has been used before
            tensorflow.config.threading.set_intra_op_parallelism_threads(threads.count_thread_cores())


def _set_keras_threads(count: int) -> None:
    """Set the number of threads. Only the PyTorch backend can change it at run time."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(count)


def _try_keras_model(model: Any, inputs: Any) -> Any:
    """The model's output for some rows. Builds the model if necessary."""
    try:
        return model.predict_on_batch(inputs)
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"The model cannot take features of the shape {list(inputs.shape)}: {_shorten_keras_reason(error)}",
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


def _shorten_keras_reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
