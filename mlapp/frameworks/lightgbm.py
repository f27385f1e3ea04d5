"""LightGBM: its scikit-learn classes and its Booster, saved in its own text format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mlapp.errors import DataError, MissingExtraError, ModelError
from mlapp.frameworks import onnx_export, threads, tree_structure
from mlapp.frameworks.column_types import require_column_types
from mlapp.frameworks.framework import Framework, cannot_proceed_error

FILE = "model.txt"
WRAPPER = "wrapper.json"
END = "\nend of trees\n"


class _Wrapper(msgspec.Struct):
    """Data that LightGBM's text format lacks: the class of the model, the best iteration, and the labels."""

    kind: str
    best_iteration: int
    has_names: bool = False
    classes: list[bool | int | float | str] | None = None


class LightGBMFramework(Framework):
    """`LGBMClassifier`, `LGBMRegressor`, `LGBMRanker` and `Booster`.

    LightGBM writes its boosters as text, and has no format for its scikit-learn classes. A JSON file next to the text
    contains their labels.
    """

    name: ClassVar[str] = "lightgbm"
    libraries: ClassVar[tuple[str, ...]] = ("lightgbm", "numpy", "scikit-learn")
    formats: ClassVar[tuple[str, ...]] = ("txt",)
    extra: ClassVar[str | None] = "lightgbm"
    survives_fork: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "lightgbm")

    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        """Fit the model.

        Raises:
            DataError: a column has an unsupported name or type, or LightGBM reads two columns as the same.
        """
        _require_lightgbm_names(features)
        require_column_types("LightGBM", features, category_kinds="Oiufb", takes_arrow=False)
        return model.fit(features, target)

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Add the trees of `model` to those of `previous`, with `reg_lambda=1` unless the model sets it.

        Without regularization, the step is unbounded for a row that the earlier trees predict with certainty but
        incorrectly: LightGBM divides by the second derivative of the loss, which is nearly 0 there.
        """
        if not hasattr(previous, "booster_"):
            raise cannot_proceed_error(model, "only LightGBM's scikit-learn classes can")
        if not model.get_params().get("reg_lambda"):
            model.set_params(reg_lambda=1.0)
        return model.fit(features, target, init_model=previous.booster_)

    def predictor(self, model: Any, features: Any) -> Any:
        return model.predict(features, num_threads=threads.choose_thread_count(len(features)))

    def to_onnx(self, model: Any, features: Any) -> bytes:
        return onnx_export.export_lightgbm_to_onnx(model, features)

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        import lightgbm
        from sklearn.exceptions import NotFittedError

        if isinstance(model, lightgbm.Booster):
            booster, wrapper = model, _Wrapper("Booster", model.best_iteration)
        else:
            try:
                booster = model.booster_
            except NotFittedError as error:
                raise ModelError(
                    f"The model, a {type(model).__name__}, is not fitted.",
                    "Return the fitted model from the @app.trainer.",
                ) from error
            classes = model.classes_.tolist() if hasattr(model, "predict_proba") else None
            kind, has_names = _find_lightgbm_class(type(model)), hasattr(model, "feature_names_in_")
            wrapper = _Wrapper(kind, booster.best_iteration, has_names, classes)
        # num_iteration=-1 keeps every tree: continuing from this version also needs those after the best one.
        booster.save_model(folder / FILE, num_iteration=-1)
        # Labels of an object array can be NumPy scalars.
        (folder / WRAPPER).write_bytes(msgspec.json.encode(wrapper, enc_hook=lambda label: label.item()))

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        try:
            import lightgbm
        except ImportError:
            raise MissingExtraError("Loading LightGBM models", "lightgbm") from None
        try:
            text = (folder / FILE).read_text(encoding="utf-8")
            if END not in text:  # LightGBM ends the process if a text is truncated
                raise ModelError(
                    f"{folder / FILE} is not a LightGBM model, or is truncated.", "Train again here, or restore it."
                )
            tree_structure.require_sound_lightgbm_trees(text)
            booster = lightgbm.Booster(model_str=text)
            wrapper = msgspec.json.decode((folder / WRAPPER).read_bytes(), type=_Wrapper)
        except (lightgbm.basic.LightGBMError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{folder / FILE} is not a LightGBM model, or is truncated: {error}", "Train again here, or restore it."
            ) from error
        booster.best_iteration = wrapper.best_iteration
        return booster if wrapper.kind == "Booster" else _wrap_lightgbm_booster(lightgbm, wrapper, booster)


def _require_lightgbm_names(features: Any) -> None:
    names = [str(name) for name in getattr(features, "columns", ())]
    if unsupported := [name for name in names if set(name) & set('",:[]{}')]:
        raise DataError(
            "LightGBM does not accept column names with quotes, commas, colons or brackets: "
            f"{', '.join(map(repr, unsupported[:5]))}.",
            r"Rename them in the data_reader: table.columns = table.columns.str.replace(r'[^\w ]', '_', regex=True)",
        )
    names_read: dict[str, str] = {}
    for name in names:
        other = names_read.setdefault(name.replace(" ", "_"), name)
        if other is not name:
            raise DataError(
                f"LightGBM reads the columns {other!r} and {name!r} as the same column: it replaces spaces with "
                f"underscores.",
                "Give each column its own name in the data_reader.",
            )


def _wrap_lightgbm_booster(lightgbm: Any, wrapper: _Wrapper, booster: Any) -> Any:
    """The scikit-learn model for a loaded booster, with the attributes that `fit` sets."""
    import numpy as np
    from sklearn.preprocessing import LabelEncoder

    kind = getattr(lightgbm, wrapper.kind, None)  # the name comes from an untrusted file, and the class is called
    if not (isinstance(kind, type) and issubclass(kind, lightgbm.LGBMModel)):
        raise ModelError(
            f"{WRAPPER} names '{wrapper.kind}' as the class of the model, which is not a LightGBM model.",
            "Train again here, or restore it.",
        )
    model = kind(n_jobs=threads.count_thread_cores())
    model._Booster = booster
    model._n_features = model._n_features_in = booster.num_feature()
    model._best_iteration = booster.best_iteration
    model._fitted_with_feature_names = wrapper.has_names
    model.fitted_ = True
    if wrapper.classes is not None:
        model._classes = np.asarray(wrapper.classes)
        model._n_classes = len(wrapper.classes)
        model._le = LabelEncoder()
        model._le.classes_ = model._classes
        model._class_map = dict(zip(wrapper.classes, range(model._n_classes), strict=True))
        model._objective = "binary" if model._n_classes <= 2 else "multiclass"
    return model


def _find_lightgbm_class(kind: type) -> str:
    """The name of the model's LightGBM class, or of its nearest LightGBM base."""
    import lightgbm

    own: type = next(base for base in kind.__mro__ if getattr(lightgbm, base.__name__, None) is base)
    return own.__name__
