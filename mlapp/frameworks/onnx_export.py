"""Converts models to ONNX with skl2onnx, onnxmltools and PyTorch's exporter."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from mlapp.errors import MissingExtraError, MlappError, ModelError
from mlapp.frameworks.onnx import CLASSES, LABELS

OPSET = 15
"""The newest opset that onnxmltools writes."""


def export_sklearn_to_onnx(model: Any, features: Any) -> bytes:
    """Convert with skl2onnx. A ColumnTransformer gets one input per column, other models one tensor.

    Raises:
        ModelError: a part of the model has no converter.
    """
    with _quiet_onnx_export(model):
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType

        is_mixed = hasattr(features, "dtypes") and any(dtype.kind not in "biuf" for dtype in features.dtypes)
        if is_mixed or _exports_named_columns(model):
            types = [
                (str(name), (FloatTensorType if dtype.kind in "biuf" else StringTensorType)([None, 1]))
                for name, dtype in features.dtypes.items()
            ]
        else:
            types = [("features", FloatTensorType([None, features.shape[1]]))]
        options = {"zipmap": False} if hasattr(model, "predict_proba") else None
        proto = _name_onnx_classes(to_onnx(model, initial_types=types, options=options), model)
        content: bytes = proto.SerializeToString()
        return content


def export_xgboost_to_onnx(model: Any, features: Any) -> bytes:
    """Convert with onnxmltools.

    Raises:
        ModelError: the model has no converter.
    """
    with _quiet_onnx_export(model):
        from onnxmltools.convert import convert_xgboost

        # The converter does not accept column names.
        nameless = copy.deepcopy(model)
        nameless.get_booster().feature_names = None
        proto = _name_onnx_classes(
            convert_xgboost(nameless, initial_types=_make_onnx_tensor_type(features), target_opset=OPSET), model
        )
        content: bytes = proto.SerializeToString()
        return content


def export_lightgbm_to_onnx(model: Any, features: Any) -> bytes:
    """Convert with onnxmltools.

    Raises:
        ModelError: the model has no converter.
    """
    with _quiet_onnx_export(model):
        from onnxmltools.convert import convert_lightgbm

        zipmap = {"zipmap": False} if hasattr(model, "predict_proba") else {}
        proto = convert_lightgbm(model, initial_types=_make_onnx_tensor_type(features), target_opset=OPSET, **zipmap)
        proto = _name_onnx_classes(proto, model)
        content: bytes = proto.SerializeToString()
        return content


def export_pytorch_to_onnx(model: Any, inputs: Any, labels: list[Any] | None) -> bytes:
    """Convert with PyTorch's exporter, and store the labels in the metadata.

    Raises:
        ModelError: the module has operations that ONNX does not support.
    """
    with _quiet_onnx_export(model):
        import onnxscript  # noqa: F401  # PyTorch's exporter needs it, and says so in a long traceback
        import torch

        program: Any = torch.onnx.export(
            model.eval(),
            (inputs[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            input_names=["features"],
            output_names=["outputs"],
            verbose=False,
        )
        proto = program.model_proto
        if labels is not None:
            proto.metadata_props.add(key=LABELS, value=json.dumps(labels))
        content: bytes = proto.SerializeToString()
        return content


def _name_onnx_classes(proto: Any, model: Any) -> Any:
    """The ONNX model with its class names in the metadata, because the matrix of probabilities has none."""
    classes = getattr(model, "classes_", None)
    if classes is not None and hasattr(classes, "tolist"):
        proto.metadata_props.add(key=CLASSES, value=json.dumps(classes.tolist(), default=str))
    return proto


def _make_onnx_tensor_type(features: Any) -> list[Any]:
    from onnxmltools.convert.common.data_types import FloatTensorType

    return [("features", FloatTensorType([None, features.shape[1]]))]


def _exports_named_columns(model: Any) -> bool:
    """Whether the model, or one of its steps, selects columns by name."""
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    return any(hasattr(step, "transformers") and hasattr(step, "remainder") for step in steps)


@contextmanager
def _quiet_onnx_export(model: Any) -> Iterator[None]:
    """Suppress the converters' output, and translate their errors to ModelError."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except MlappError:
        raise
    except ImportError as error:
        raise MissingExtraError("Converting a model to ONNX", "onnx") from error
    except Exception as error:  # the converters of each framework raise their own types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"The model, a {type(model).__name__}, cannot be converted to ONNX: {reason:.300}",
            "Serve it without ONNX, or build it from parts that have a converter.",
        ) from error
    finally:
        logging.disable(level)
