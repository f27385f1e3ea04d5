"""The adapter to Keras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mlapp.errors import MissingExtraError, ModelError
from mlapp.frameworks import arrays, threads
from mlapp.frameworks.epochs import EpochSettings, require_valid_epoch_parameters
from mlapp.frameworks.framework import Framework, cannot_proceed_error
from mlapp.frameworks.keras import training_loop

FILE = "model.keras"
LABELS_FILE = "labels.json"
LABELS = "mlapp_labels"
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
        """Fit with early stopping; see `EpochSettings` for the parameters."""
        settings = EpochSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation=validation,
            patience=patience,
            seed=seed,
            checkpoint_every=checkpoint_every,
        )
        labels = training_loop.fit_keras_model(model, features, target, settings)
        setattr(model, LABELS, labels)
        return model

    def check(self, parameters: Mapping[str, Any]) -> None:  # most trainers take no numbers
        require_valid_epoch_parameters(parameters)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Set the weights of `model` to those of `previous`."""
        training_loop.try_keras_model(model, arrays.features_to_array(features)[:2])
        try:
            model.set_weights(previous.get_weights())
        except ValueError as error:
            reason = f"its weights do not fit those of the version: {training_loop.shorten_keras_reason(error)}"
            raise cannot_proceed_error(model, reason) from error
        return model

    def classifies(self, model: Any) -> bool:
        return getattr(model, LABELS, None) is not None

    def predictor(self, model: Any, features: Any) -> Any:
        """The label of the best score, or the model's numbers; in batches of 4,096 rows."""
        import numpy as np

        training_loop.set_keras_threads(threads.choose_thread_count(len(features)))
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
                f"{training_loop.shorten_keras_reason(error)}",
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
                f"{training_loop.shorten_keras_reason(error)}",
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
