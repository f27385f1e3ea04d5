"""The adapter to transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import DataError, ModelError
from mlapp.frameworks import arrays, metrics, threads
from mlapp.frameworks.framework import Framework, cannot_proceed_error
from mlapp.frameworks.huggingface import model_files, texts
from mlapp.frameworks.pytorch import tensors, training_loop

LABELS = "mlapp_labels"
TOKENIZER = "mlapp_tokenizer"
CLASSIFICATION = "text-classification"
SMALL = 20_000_000
"""Number of multiplications per call below which a single thread is the fastest."""


class HuggingFaceFramework(Framework):
    """A `transformers` pipeline for texts, or a model from a local folder that also contains its tokenizer.

    `save_pretrained` (https://huggingface.co/docs/transformers) writes safetensors and JSON. Nothing is downloaded from
    the hub, and code next to the weights (`trust_remote_code`) never runs.
    """

    name: ClassVar[str] = "huggingface"
    libraries: ClassVar[tuple[str, ...]] = ("transformers", "tokenizers", "torch", "safetensors", "numpy")
    formats: ClassVar[tuple[str, ...]] = ("safetensors",)
    extra: ClassVar[str | None] = "huggingface"
    trains_from_weights: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "transformers")

    def trainer(
        self,
        model: Any,
        features: Any,
        target: Any = None,
        *,
        epochs: int = 20,
        batch_size: int = 16,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        validation: float = 0.1,
        patience: int = 5,
        device: str = "auto",
        seed: int = 0,
        checkpoint_every: float = 60.0,
    ) -> Any:
        """Fit a classifier of texts, or a regressor with one output, with PyTorch's training loop.

        Args: see `training_loop.TrainingSettings`.
            learning_rate: by default, 5e-5 for weights from a folder and 1e-3 for random weights.

        Raises:
            DataError: the features are not texts, or there is no target. ModelError: the model is for another task, or
                has fewer outputs than the target has classes.
        """
        transformer, tokenizer = _get_transformer(model), _get_transformer_tokenizer(model)
        if target is None:
            raise DataError(
                "The default trainer for Hugging Face needs a target.", "Write an @app.trainer for this model."
            )
        targets, known_labels = _encode_transformer_target(transformer, target)
        pretrained = bool(transformer.name_or_path)
        settings = training_loop.TrainingSettings(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate or (5e-5 if pretrained else 1e-3),
            weight_decay=weight_decay,
            validation=validation,
            patience=patience,
            device=device,
            seed=seed,
            checkpoint_every=checkpoint_every,
        )
        previous_device = transformer.device
        encoded = texts.tokenize_texts(transformer, tokenizer, texts.list_huggingface_texts(features))
        fitted = training_loop.run_training_loop(
            texts.wrap_transformer(transformer.float()), encoded, targets, settings
        )
        transformer.to(previous_device)
        labels = known_labels if known_labels is not None else fitted.labels
        if labels is not None:
            transformer.config.id2label = dict(enumerate(map(str, labels)))
            transformer.config.label2id = {str(label): at for at, label in enumerate(labels)}
        setattr(transformer, LABELS, labels)
        return model

    def check(self, parameters: Mapping[str, Any]) -> None:  # most trainers take no numbers
        training_loop.check_training_loop_settings(parameters)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """The version's model, because its weights belong to its tokenizer."""
        shapes, previous_shapes = (
            _read_transformer_shapes(_get_transformer(model)),
            _read_transformer_shapes(_get_transformer(previous)),
        )
        if shapes != previous_shapes:
            name = next(
                layer for layer in {**shapes, **previous_shapes} if shapes.get(layer) != previous_shapes.get(layer)
            )
            raise cannot_proceed_error(_get_transformer(model), f"its weights do not fit those of the version: {name}")
        return previous

    def evaluator(self, model: Any, features: Any, target: Any = None) -> dict[str, float]:
        """Accuracy and macro F1 of a classifier; R², MAE and RMSE of a regressor; nothing for other tasks."""
        if target is None or not _is_transformer_classifier(model):
            return {}
        predicted = self.predictor(model, features)
        if _get_transformer_labels(_get_transformer(model)) is not None:
            return metrics.compute_classification_metrics(target, predicted)
        return metrics.compute_regression_metrics(target, predicted)

    def predictor(self, model: Any, features: Any) -> Any:
        """The label or number of each text, in batches of 32; the pipeline's own result for other tasks."""
        import torch

        transformer, tokenizer, columns = (
            _get_transformer(model),
            _get_transformer_tokenizer(model),
            texts.list_huggingface_texts(features),
        )
        if not _is_transformer_classifier(model):
            torch.set_num_threads(threads.count_thread_cores())
            with torch.inference_mode():
                outputs = model(columns[0], batch_size=texts.BATCH)
            return [row[0] if isinstance(row, list) and len(row) == 1 else row for row in outputs]
        encoded = texts.tokenize_texts(transformer, tokenizer, columns)
        tokens = min(len(encoded), texts.BATCH) * encoded.shape[2]
        work = tokens * transformer.num_parameters(exclude_embeddings=True)
        torch.set_num_threads(1 if work < SMALL else threads.count_thread_cores())
        scores = tensors.compute_pytorch_output_tensors(texts.wrap_transformer(transformer), encoded)
        return arrays.convert_framework_output_array(scores.float().numpy(), _get_transformer_labels(transformer))

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        transformer, tokenizer = _get_transformer(model), _get_transformer_tokenizer(model)
        task = model_files.Task(getattr(model, "task", None), getattr(transformer, LABELS, None), len(tokenizer))
        model_files.save_transformer(transformer, tokenizer, task, folder)

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        model, tokenizer, task = model_files.load_transformer(folder)
        setattr(model, LABELS, task.labels)
        setattr(model, TOKENIZER, tokenizer)
        if task.pipeline is None:
            return model
        import transformers

        make_pipeline: Any = transformers.pipeline  # its overloads accept only literal tasks
        try:
            with model_files.quiet_transformers():
                return make_pipeline(task.pipeline, model=model, tokenizer=tokenizer, trust_remote_code=False)
        except Exception as error:  # transformers raises many types
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"The model in {folder} cannot be loaded as a pipeline for '{task.pipeline}': {reason}",
                "Train again here, or restore it.",
            ) from error


def _get_transformer(estimator: Any) -> Any:
    """The transformer of a pipeline, or the model itself."""
    return getattr(estimator, "model", estimator) if hasattr(estimator, "task") else estimator


def _get_transformer_tokenizer(estimator: Any) -> Any:
    """The tokenizer of a pipeline; for a model, the tokenizer beside its weights.

    Raises:
        ModelError: there is none.
    """
    model = _get_transformer(estimator)
    tokenizer = getattr(estimator, "tokenizer", None) if model is not estimator else getattr(model, TOKENIZER, None)
    folder = Path(model.name_or_path)
    if tokenizer is None and model.name_or_path and (folder / model_files.TOKENIZER_FILE).is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        setattr(model, TOKENIZER, tokenizer)
    if tokenizer is None:
        raise ModelError(
            f"The model, a {type(model).__name__}, has no tokenizer.",
            "Return both from the model function: pipeline('text-classification', model=model, tokenizer=tokenizer).",
        )
    return tokenizer


def _is_transformer_classifier(estimator: Any) -> bool:
    return estimator is _get_transformer(estimator) or estimator.task == CLASSIFICATION


def _get_transformer_labels(model: Any) -> list[Any] | None:
    """The classes in the order of the outputs: from training with mlapp, otherwise from its configuration."""
    if getattr(model, LABELS, None) is not None:
        return list(getattr(model, LABELS))
    if model.config.num_labels == 1 or model.config.problem_type == "regression":
        return None
    return [model.config.id2label[at] for at in range(model.config.num_labels)]


def _encode_transformer_target(model: Any, target: Any) -> tuple[Any, list[Any] | None]:
    """The target as numbers, and the labels if the model already has all classes of the target.

    Raises:
        ModelError: the target has several columns, or classes that a trained model does not have. DataError: the target
            has lists.
    """
    import numpy as np

    values = np.asarray(target)
    arrays.require_plain_target_array(values)
    if values.ndim > 1 and values.shape[1] > 1:
        raise ModelError(
            "The default trainer for Hugging Face needs a target with one column.",
            "Write an @app.trainer for this model.",
        )
    labels, is_trained = _get_transformer_labels(model), getattr(model, LABELS, None) is not None
    if labels is None:
        return values.astype(np.float32) if values.dtype.kind in "biu" else values, None
    numbers = {label: at for at, label in enumerate(labels)}
    unknown_classes = [value for value in np.unique(values.ravel()).tolist() if value not in numbers]
    if not unknown_classes:
        return np.array([numbers[value] for value in values.ravel().tolist()]), labels
    if is_trained:
        raise cannot_proceed_error(model, f"it does not know the class {unknown_classes[0]!r}")
    return values, None


def _read_transformer_shapes(model: Any) -> dict[str, Any]:
    """The shapes of the weights, without the size of the vocabulary, which depends on the tokenizer."""
    words = model.config.vocab_size
    return {
        name: [None if size == words else size for size in weights.shape]
        for name, weights in model.state_dict().items()
    }
