"""ONNX: runs models of any origin with ONNX Runtime, and checks a conversion against the original."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mlapp.errors import DeclarationError, MissingExtraError, ModelError
from mlapp.frameworks import threads
from mlapp.frameworks.framework import Framework

FILE = "model.onnx"
LABELS = "labels"
"""The key of the metadata with the classes of a model that outputs a score for each class."""
CLASSES = "classes"
"""The key of the metadata with the names of the columns of the probabilities."""
TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""The variable that keeps ONNX Runtime from reporting to Microsoft, which it does from 1.32 on."""
TOLERANCE = 1e-4
"""Accepted difference of a number, relative to it or to 1 if that is larger: ONNX models compute with 32 bits."""


class OnnxModel:
    """An ONNX model with the interface of an estimator: `predict`, and `predict_proba` if it has probabilities.

    It takes one tensor of numbers, or one input per column, named as the columns.
    """

    def __init__(self, content: bytes) -> None:
        """Load the model.

        Raises:
            MissingExtraError: ONNX Runtime is not installed. ModelError: the content is not an ONNX model, is
                truncated, or refers to other files.
        """
        os.environ.setdefault(TELEMETRY, "1")
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("Running ONNX models", "onnx") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads.count_thread_cores()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        _require_self_contained_onnx(content)
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors have no common public base
            raise ModelError(
                f"It is not an ONNX model, or is truncated: {error}", "Export it again, or restore the file."
            ) from error
        self.content = content
        self.inputs = self.session.get_inputs()
        self.outputs = [output.name for output in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.labels = _read_onnx_labels(metadata.get(LABELS))
        self.classes_ = _read_onnx_labels(metadata.get(CLASSES))

    def predict(self, features: Any) -> Any:
        """The first output, one entry per row: a label, a number, or several numbers."""
        import numpy as np

        outputs = np.asarray(self.session.run(self.outputs[:1], self._make_onnx_feed(features))[0])
        if self.labels is not None:
            return np.asarray(self.labels)[outputs.argmax(axis=1)]
        return outputs[:, 0] if outputs.ndim == 2 and outputs.shape[1] == 1 else outputs

    def score(self, features: Any, target: Any) -> float:
        """Accuracy, or R² for a regressor, as in scikit-learn's estimators."""
        metrics = OnnxFramework().evaluator(self, features, target)
        return metrics["accuracy" if "accuracy" in metrics else "r2"]

    def __getattr__(self, name: str) -> Any:
        # hasattr(model, "predict_proba") tells callers whether this model has probabilities.
        if name == "predict_proba" and self._probabilities:
            return lambda features: self.session.run(["probabilities"], self._make_onnx_feed(features))[0]
        raise AttributeError(f"This ONNX model has no {name}.")

    @cached_property
    def _probabilities(self) -> bool:
        return "probabilities" in self.outputs

    @property
    def is_classifier(self) -> bool:
        """Whether the model predicts labels."""
        kind: str = self.session.get_outputs()[0].type
        return self.labels is not None or kind in ("tensor(int64)", "tensor(string)", "tensor(bool)")

    def _make_onnx_feed(self, features: Any) -> dict[str, Any]:
        import numpy as np

        if len(self.inputs) == 1:
            return {self.inputs[0].name: np.asarray(features, dtype=_find_onnx_dtype(self.inputs[0].type))}
        return {
            column.name: np.asarray(features[column.name], dtype=_find_onnx_dtype(column.type)).reshape(-1, 1)
            for column in self.inputs
        }


class OnnxFramework(Framework):
    """Ready models in `.onnx` files, as in `app.model("model.onnx")`: evaluation and serving, but no training."""

    name: ClassVar[str] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "numpy")
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    extra: ClassVar[str | None] = "onnx"

    def owns(self, kind: type) -> bool:
        return kind is OnnxModel

    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        raise DeclarationError(
            "An ONNX model cannot be trained.",
            "Declare it as it is, app.model('model.onnx'), or train another and export it: mlapp export --onnx.",
        )

    def classifies(self, model: Any) -> bool:
        return bool(model.is_classifier)

    def predictor(self, model: Any, features: Any) -> Any:
        return model.predict(features)

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        (folder / FILE).write_bytes(model.content)

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        return self.load_file(folder / FILE, trusted)

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        try:
            return OnnxModel(file.read_bytes())
        except ModelError as error:
            raise ModelError(f"{file}: {error.what}", error.todo) from error


def _require_self_contained_onnx(content: bytes) -> None:
    """Check that no tensor's data is in another file. ONNX Runtime reads such files from the working directory.

    Raises:
        MissingExtraError: onnx is not installed. ModelError: a tensor's data is external, or it is not an ONNX model.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("Running ONNX models", "onnx") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors differ between its implementations
        raise ModelError(
            f"It is not an ONNX model, or is truncated: {error}", "Export it again, or restore the file."
        ) from error
    for tensor in _iterate_onnx_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f"The data of '{tensor.name}' is in another file: an ONNX model must contain all of its weights.",
                "Save it as one file: onnx.save_model(model, path, save_as_external_data=False).",
            )


def _iterate_onnx_tensors(message: Any) -> Iterator[Any]:
    """All tensors in a protobuf message of ONNX, also those in graphs, functions and attributes."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _iterate_onnx_tensors(part)


def _read_onnx_labels(text: str | None) -> list[Any] | None:
    """The classes in the metadata of a model.

    Raises:
        ModelError: the metadata is not a list of texts and numbers.
    """
    try:
        return msgspec.json.decode(text, type=list[bool | int | float | str]) if text else None
    except msgspec.MsgspecError as error:
        raise ModelError(f"The labels in its metadata are damaged: {error}", "Export it again.") from error


def require_same_onnx_predictions(original: Any, converted: Any, probabilities: tuple[Any, Any] | None = None) -> None:
    """Compare the predictions of a model with those of its conversion.

    Args:
        probabilities: those of both models. If two classes are equally likely, rounding can select either.

    Raises:
        ModelError: the predictions differ by more than rounding; names the largest difference.
    """
    import numpy as np

    expected, actual = np.asarray(original), np.asarray(converted)
    if probabilities is not None:
        _require_close_onnx_outputs("probabilities", *probabilities)
    if expected.shape != actual.shape:
        raise _onnx_difference_error(f"its predictions have the shape {list(actual.shape)}, not {list(expected.shape)}")
    if expected.dtype.kind == "f":
        return _require_close_onnx_outputs("predictions", expected, actual)
    differing = np.flatnonzero((expected != actual).reshape(len(expected), -1).any(axis=1))
    if probabilities is not None and len(differing):
        best = np.sort(np.asarray(probabilities[0])[differing], axis=1)
        differing = differing[best[:, -1] - best[:, -2] > TOLERANCE]
    if len(differing):
        row = differing[0]
        raise _onnx_difference_error(
            f"{len(differing)} of {len(expected)} rows differ, as {actual[row]!r} for {expected[row]!r}"
        )


def _require_close_onnx_outputs(output: str, original: Any, converted: Any) -> None:
    import numpy as np

    expected, actual = np.asarray(original, dtype=float), np.asarray(converted, dtype=float)
    if expected.shape != actual.shape:
        raise _onnx_difference_error(f"its {output} have the shape {list(actual.shape)}, not {list(expected.shape)}")
    errors = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
    errors = np.where(np.isnan(expected) & np.isnan(actual), 0.0, errors)
    if errors.size and not errors.max() <= TOLERANCE:
        at = np.unravel_index(np.nanargmax(np.where(np.isnan(errors), np.inf, errors)), errors.shape)
        raise _onnx_difference_error(
            f"the worst of its {output} is {actual[at]:.6g} for {expected[at]:.6g} (row {at[0]})"
        )


def _onnx_difference_error(difference: str) -> ModelError:
    return ModelError(
        f"The ONNX model does not predict like the original: {difference}.",
        "Serve the original; or scale the features, because ONNX models compute with 32 bits.",
    )


def _find_onnx_dtype(kind: str) -> Any:
    import numpy as np

    kinds = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(bool)": np.bool_,
        "tensor(float16)": np.float16,
    }
    return kinds.get(kind, object)
