"""The adapter to PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mlapp.errors import MissingExtraError, ModelError
from mlapp.frameworks import arrays, onnx_export, threads
from mlapp.frameworks.framework import Framework, cannot_proceed_error
from mlapp.frameworks.pytorch import tensors, training_loop

FILE = "model.safetensors"
LABELS = "labels"


class PyTorchFramework(Framework):
    """A `torch.nn.Module` that takes a batch of numbers and returns a number, or a score for each class, per row.

    safetensors (https://huggingface.co/docs/safetensors) stores only weights, so loading runs no code: the app's model
    function builds the module with the parameters of its training, and the weights are loaded into it.
    """

    name: ClassVar[str] = "pytorch"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "safetensors", "numpy")
    formats: ClassVar[tuple[str, ...]] = ("safetensors",)
    extra: ClassVar[str | None] = "torch"
    weights_only: ClassVar[bool] = True
    trains_from_weights: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "torch")

    def trainer(
        self,
        model: Any,
        features: Any,
        target: Any = None,
        *,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        validation: float = 0.1,
        patience: int = 5,
        device: str = "auto",
        seed: int = 0,
        checkpoint_every: float = 30.0,
    ) -> Any:
        """Fit with AdamW; see `training_loop.TrainingSettings` for the parameters."""
        settings = training_loop.TrainingSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            validation=validation,
            patience=patience,
            device=device,
            seed=seed,
            checkpoint_every=checkpoint_every,
        )
        return training_loop.run_training_loop(model, features, target, settings)

    def check(self, parameters: Mapping[str, Any]) -> None:  # most trainers take no numbers
        training_loop.check_training_loop_settings(parameters)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Set the weights of `model` to those of `previous`."""
        try:
            model.load_state_dict(previous.state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise cannot_proceed_error(model, f"its weights do not fit those of the version: {reason}") from error
        return model

    def classifies(self, model: Any) -> bool:
        return getattr(model, LABELS, None) is not None

    def predictor(self, model: Any, features: Any) -> Any:
        """The label of the best score, or the module's numbers; in batches of 4,096 rows."""
        import torch

        torch.set_num_threads(threads.choose_thread_count(len(features)))
        outputs = tensors.compute_pytorch_output_tensors(model, tensors.features_to_tensor(features))
        return arrays.convert_framework_output_array(outputs.numpy(), getattr(model, LABELS, None))

    def to_onnx(self, model: Any, features: Any) -> bytes:
        return onnx_export.export_pytorch_to_onnx(
            model, tensors.features_to_tensor(features), getattr(model, LABELS, None)
        )

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        from safetensors.torch import save_model

        metadata = tensors.write_pytorch_tensor_labels(getattr(model, LABELS, None))
        try:
            save_model(model, str(folder / FILE), metadata)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"The weights of the model, a {type(model).__name__}, cannot be saved: {error}",
                "Write an @app.saver and an @app.loader for it.",
            ) from error

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        raise ModelError(
            f"{folder / FILE} contains only weights.",
            "Load it with the app that trained it, whose model function builds the module.",
        )

    def restore(self, model: Any, folder: Path) -> Any:
        file = folder / FILE
        try:
            from safetensors import SafetensorError, safe_open
            from safetensors.torch import load_model
        except ImportError:
            raise MissingExtraError("Loading PyTorch models", "torch") from None
        try:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata()
            load_model(model, file)
            model.labels = tensors.read_pytorch_tensor_labels(metadata)
        except (SafetensorError, msgspec.MsgspecError, KeyError) as error:
            raise ModelError(f"{file} is truncated or damaged: {error}", "Train again here, or restore it.") from error
        except RuntimeError as error:
            raise ModelError(
                f"The weights in {file} do not fit the module that the app's model function builds: {error}",
                "Build the same module as in training, or train again.",
            ) from error
        return model.eval()
