"""XGBoost: its scikit-learn classes and its Booster, saved in its own binary JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import DataError, MissingExtraError, ModelError
from mlapp.frameworks import onnx_export, threads, tree_structure
from mlapp.frameworks.column_types import require_column_types
from mlapp.frameworks.framework import Framework, cannot_proceed_error

FILES = {"ubj": "model.ubj", "json": "model.json"}
KIND = "class"
"""The attribute of the stored booster that names the class of the model."""
MISSING = "missing"
"""The attribute of the stored booster with the value for "missing", which XGBoost's own files do not contain."""
ATTRIBUTES = (KIND, MISSING)


class XGBoostFramework(Framework):
    """`XGBClassifier`, `XGBRegressor`, `XGBRanker`, their random forests, and `Booster`.

    The format is described in https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html.
    """

    name: ClassVar[str] = "xgboost"
    libraries: ClassVar[tuple[str, ...]] = ("xgboost", "xgboost-cpu", "numpy", "scikit-learn")
    formats: ClassVar[tuple[str, ...]] = ("ubj", "json")
    suffixes: ClassVar[tuple[str, ...]] = (".ubj",)
    extra: ClassVar[str | None] = "xgboost"
    survives_fork: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "xgboost")

    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        """Fit the model. A classifier requires classes that are numbered from 0.

        Raises:
            DataError: the target has other classes, or a column has a name that XGBoost does not support.
        """
        _require_xgboost_class_numbers(model, target)
        _require_xgboost_names(features)
        if getattr(model, "enable_categorical", True) is False:
            _require_no_xgboost_categories(features)
        require_column_types("XGBoost", features, category_kinds="Oiu", takes_arrow=True)
        return model.fit(features, target)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Add the trees of `model` to those of `previous`."""
        if not hasattr(model, "get_booster"):
            raise cannot_proceed_error(model, "only XGBoost's scikit-learn classes can")
        _require_xgboost_class_numbers(model, target)
        try:
            return model.fit(features, target, xgb_model=previous.get_booster())
        except ValueError as error:  # XGBoostError is one
            raise cannot_proceed_error(model, str(error).strip().splitlines()[0]) from error

    def classifies(self, model: Any) -> bool:
        return hasattr(model, "predict_proba") or _is_xgboost_class_booster(model)

    def predictor(self, model: Any, features: Any) -> Any:
        count = threads.choose_thread_count(len(features))
        if hasattr(model, "get_booster"):
            model.get_booster().set_param({"nthread": count})
            return model.predict(features)
        model.set_param({"nthread": count})
        return model.inplace_predict(features)

    def probabilities(self, model: Any, features: Any) -> Any:
        if hasattr(model, "get_booster"):
            model.get_booster().set_param({"nthread": threads.choose_thread_count(len(features))})
        return super().probabilities(model, features)

    def to_onnx(self, model: Any, features: Any) -> bytes:
        if not hasattr(model, "get_booster"):
            return super().to_onnx(model, features)
        return onnx_export.export_xgboost_to_onnx(model, features)

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        import xgboost

        booster = model if isinstance(model, xgboost.Booster) else _get_xgboost_booster(model)
        missing = getattr(model, "missing", None)
        missing_text = None if missing is None or missing != missing else repr(float(missing))
        booster.set_attr(**{KIND: _find_xgboost_class(type(model)), MISSING: missing_text})
        try:
            model.save_model(folder / FILES[format])
        finally:
            booster.set_attr(**dict.fromkeys(ATTRIBUTES))

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        return self.load_file(folder / FILES[format], trusted)

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        try:
            import xgboost
        except ImportError:
            raise MissingExtraError("Loading XGBoost models", "xgboost") from None
        try:
            booster = xgboost.Booster(model_file=file)
            kind = _find_xgboost_model_class(xgboost, booster.attr(KIND) or "Booster", file)
            missing = booster.attr(MISSING)
            booster.set_attr(**dict.fromkeys(ATTRIBUTES))
            tree_structure.require_sound_xgboost_trees(booster)
            if kind is xgboost.Booster:
                return booster
            model = kind(n_jobs=threads.count_thread_cores())
            model.load_model(file)
            model.get_booster().set_attr(**dict.fromkeys(ATTRIBUTES))
            if missing is not None:
                model.missing = float(missing)
            return model
        except (ValueError, KeyError, TypeError) as error:  # XGBoostError is a ValueError
            reason = next(iter(str(error).strip().splitlines()[::-1]), type(error).__name__)
            raise ModelError(
                f"{file} is not an XGBoost model, or is truncated: {reason}",
                "Train again here, or restore the file.",
            ) from error


def _find_xgboost_model_class(xgboost: Any, name: str, file: Path) -> Any:
    """XGBoost's model class with this name. It must be checked, as the name comes from an untrusted file.

    Raises:
        ModelError: it is not a model class.
    """
    kind = getattr(xgboost, name, None)
    if kind is xgboost.Booster or (isinstance(kind, type) and issubclass(kind, xgboost.XGBModel)):
        return kind
    raise ModelError(
        f"{file} names '{name}' as its class, which is not an XGBoost model.", "Train again here, or restore the file."
    )


def _get_xgboost_booster(model: Any) -> Any:
    from sklearn.exceptions import NotFittedError

    try:
        return model.get_booster()
    except NotFittedError as error:
        raise ModelError(
            f"The model, a {type(model).__name__}, is not fitted.", "Return the fitted model from the @app.trainer."
        ) from error


def _find_xgboost_class(kind: type) -> str:
    """The name of the model's XGBoost class, or of its nearest XGBoost base."""
    import xgboost

    own: type = next(base for base in kind.__mro__ if getattr(xgboost, base.__name__, None) is base)
    return own.__name__


def _is_xgboost_class_booster(model: Any) -> bool:
    """Whether a Booster predicts classes: those of `multi:softmax` and `binary:hinge` do, others predict numbers."""
    if not hasattr(model, "save_config"):
        return False
    import json

    objective = json.loads(model.save_config())["learner"]["objective"]["name"]
    return objective in ("multi:softmax", "binary:hinge")


def _require_xgboost_class_numbers(model: Any, target: Any) -> None:
    if not hasattr(model, "predict_proba") or target is None:
        return
    import pandas as pd

    values = pd.Series(target if getattr(target, "ndim", 1) == 1 else target.iloc[:, 0])
    if not len(values) or values.dtype.kind in "bf":
        return
    classes = sorted(values.unique()) if values.dtype.kind in "iu" else sorted(map(str, values.unique()))
    if values.dtype.kind in "iu" and classes == list(range(len(classes))):
        return
    class_list = ", ".join(map(repr, map(_to_plain_xgboost_value, classes[:4]))) + (", …" if len(classes) > 4 else "")
    raise DataError(
        f"XGBoost's classifiers need classes numbered from 0; the target has {class_list}.",
        "Number them in the data_reader: table[target] = table[target].astype('category').cat.codes",
    )


def _to_plain_xgboost_value(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _require_no_xgboost_categories(features: Any) -> None:
    names = [str(name) for name, dtype in getattr(features, "dtypes", {}).items() if str(dtype) == "category"]
    if names:
        raise DataError(
            f"The features have columns of categories, which the model is not configured to accept: '{names[0]}'.",
            "Let the model take them: XGBClassifier(enable_categorical=True).",
        )


def _require_xgboost_names(features: Any) -> None:
    unsupported = [str(name) for name in getattr(features, "columns", ()) if set(str(name)) & set("[]<")]
    if unsupported:
        raise DataError(
            f"XGBoost does not accept column names with [, ] or <: {', '.join(map(repr, unsupported[:5]))}.",
            r"Rename them in the data_reader: table.columns = table.columns.str.replace(r'[\[\]<]', '_', regex=True)",
        )
