"""scikit-learn: estimators and pipelines, saved with skops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import ModelError
from mlapp.frameworks import joblib_files, loaded_estimator, metrics, onnx, onnx_export
from mlapp.frameworks.documents import select_text_documents
from mlapp.frameworks.framework import (
    Framework,
    cannot_proceed_error,
    no_probabilities_error,
    unreadable_framework_file_error,
    will_have_method,
)
from mlapp.frameworks.sklearn_checks import shorten_input_checks
from mlapp.frameworks.sklearn_errors import explain_mixed_sklearn_targets, explain_sklearn_column_error
from mlapp.frameworks.skops_files import dump_skops, import_skops, require_skops_savable, require_trusted_skops_types

FILE = "model.skops"


class SklearnFramework(Framework):
    """Estimators with scikit-learn's base classes.

    skops (https://skops.readthedocs.io) writes no pickle. Types in a file are checked against a list of trusted types
    before loading, so a model file cannot run code of its own.
    """

    name: ClassVar[str] = "sklearn"
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn", "numpy", "scipy", "skops")
    formats: ClassVar[tuple[str, ...]] = ("skops", "joblib", "onnx")
    suffixes: ClassVar[tuple[str, ...]] = (".skops", ".joblib", ".pkl")
    extra: ClassVar[str | None] = "sklearn"
    survives_fork: ClassVar[bool] = True

    def owns(self, kind: type) -> bool:
        return self.module_owns(kind, "sklearn")

    def prepare_server(self) -> None:
        shorten_input_checks()

    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        """Fit the model.

        Raises:
            DataError: the model does not support texts, missing or infinite values, or targets of several types; names
                the columns.
        """
        features = select_text_documents(model, features)
        try:
            return model.fit(features) if target is None else model.fit(features, target)
        except (ValueError, TypeError) as error:
            explanation = explain_mixed_sklearn_targets(model, target) or explain_sklearn_column_error(
                model, features, error
            )
            if explanation is None:
                raise
            raise explanation from error

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Continue with `partial_fit`, or with `warm_start`, which adds as many members to an ensemble as `model` has.

        In a pipeline, only the last step continues. The earlier steps stay unchanged, because the last step was trained
        on the features that they transformed.
        """
        from sklearn.pipeline import Pipeline

        features = select_text_documents(model, features)
        if isinstance(previous, Pipeline) and isinstance(model, Pipeline):
            return self._continue_last_sklearn_step(model, previous, features, target)
        if not hasattr(previous, "partial_fit") and not hasattr(model, "warm_start"):
            raise cannot_proceed_error(model, "it has neither partial_fit nor warm_start")
        settings = model.get_params()
        previous.set_params(**settings)
        try:
            if hasattr(previous, "partial_fit"):
                return previous.partial_fit(features) if target is None else previous.partial_fit(features, target)
            for setting, attribute in (("n_estimators", "estimators_"), ("max_iter", "n_iter_")):
                if setting in settings and hasattr(previous, attribute) and _counts_fitted_members(model, setting):
                    members = getattr(previous, attribute)
                    previous.set_params(
                        **{setting: settings[setting] + (members if isinstance(members, int) else len(members))}
                    )
            previous.set_params(warm_start=True)
            return self.trainer(previous, features, target).set_params(warm_start=settings["warm_start"])
        except ValueError as error:
            raise cannot_proceed_error(model, error) from error

    def _continue_last_sklearn_step(self, model: Any, previous: Any, features: Any, target: Any) -> Any:
        *_, (name, last) = previous.steps
        if changed := _find_changed_sklearn_step(model, previous):
            raise cannot_proceed_error(model, f"its step '{changed}' has changed, but only the last step can continue")
        if len(previous.steps) > 1:
            features = previous[:-1].transform(features)
        previous.steps[-1] = (name, self.proceed(model.steps[-1][1], last, features, target))
        return previous

    def evaluator(self, model: Any, features: Any, target: Any = None) -> dict[str, float]:
        """The usual metrics of one split. For a clusterer, the number of clusters and their silhouette on at most 2,000
        rows, computed on the input of a pipeline's last step.
        """
        from sklearn import base

        features = select_text_documents(model, features)
        if target is None:
            return (
                _compute_clustering_metrics(model, features)
                if base.is_clusterer(model)
                else _call_own_sklearn_score(model, features)
            )
        if base.is_classifier(model):
            return metrics.compute_classification_metrics(target, model.predict(features), self.scores(model, features))
        if base.is_regressor(model):
            return metrics.compute_regression_metrics(target, model.predict(features))
        return {"score": float(model.score(features, target))} if hasattr(model, "score") else {}

    def predictor(self, model: Any, features: Any) -> Any:
        return model.predict(select_text_documents(model, features))

    def require_predict(self, model: Any, *, gives_probabilities: bool) -> None:  # most models can
        if gives_probabilities and not will_have_method(model, "predict_proba"):
            raise no_probabilities_error(model)
        if not will_have_method(model, "predict"):
            raise ModelError(
                f"A {type(model).__name__} has no method predict.",
                "Write an @app.predictor that returns one prediction for each row, or choose another model.",
            )

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        if format == "joblib":
            return joblib_files.save_joblib(model, folder)
        if format == "onnx":
            # A model that was saved and loaded, as between Flyte's tasks, is ONNX already.
            content = model.content if isinstance(model, onnx.OnnxModel) else _convert_sklearn_to_onnx(model)
            (folder / onnx.FILE).write_bytes(content)
            return None
        dump_skops(model, folder / FILE)
        require_trusted_skops_types(import_skops(), folder / FILE, trusted, type(model).__name__)
        loaded_estimator.require_sound_loaded_estimator(model, trusted)

    def require_savable(self, model: Any, format: str, trusted: Sequence[str]) -> None:  # most can be
        if format == "joblib":
            joblib_files.require_joblib_savable(model)
        elif format == "skops":
            require_skops_savable(model, trusted)

    def to_onnx(self, model: Any, features: Any) -> bytes:
        return onnx_export.export_sklearn_to_onnx(model, features)

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        """The estimator, or an `OnnxModel` with the same answers if it was saved as ONNX."""
        if format == "onnx":
            return onnx.OnnxFramework().load(folder, format, trusted)
        return self.load_file(folder / (joblib_files.FILE if format == "joblib" else FILE), trusted)

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        if file.suffix != ".skops":
            return joblib_files.load_joblib(file)
        io = import_skops()
        try:
            model = io.load(file, trusted=require_trusted_skops_types(io, file, trusted, file.name))
            loaded_estimator.require_sound_loaded_estimator(model, trusted)
            return model
        except (OSError, ModelError):
            raise
        except Exception as error:  # skops and the classes that it builds raise many types
            raise unreadable_framework_file_error(file, error) from error


def _find_changed_sklearn_step(model: Any, previous: Any) -> str | None:
    """The first step, except the last, whose type or plain settings differ."""
    names: list[list[str]] = [[name for name, _ in pipeline.steps] for pipeline in (model, previous)]
    if names[0] != names[1]:
        return next((name for name in names[0] if name not in names[1]), names[0][-1])
    for (name, step), (_, previous_step) in list(zip(model.steps, previous.steps, strict=True))[:-1]:
        if type(step) is not type(previous_step) or _list_plain_sklearn_settings(step) != _list_plain_sklearn_settings(
            previous_step
        ):
            return str(name)
    return None


def _list_plain_sklearn_settings(step: Any) -> dict[str, str]:
    settings = step.get_params() if hasattr(step, "get_params") else {}
    return {name: repr(value) for name, value in settings.items() if isinstance(value, (int, float, str, type(None)))}


def _counts_fitted_members(model: Any, count: str) -> bool:
    """Whether a setting is the model's number of members. `max_iter` is that only in histogram boosting."""
    return count == "n_estimators" or type(model).__name__.startswith("HistGradientBoosting")


def _convert_sklearn_to_onnx(model: Any) -> bytes:
    """The model as ONNX, checked against the original on random rows."""
    import numpy as np
    import pandas as pd

    rows = np.random.default_rng(0).normal(scale=10, size=(256, model.n_features_in_))
    names = getattr(model, "feature_names_in_", None)
    features = rows if names is None else pd.DataFrame(rows, columns=names)
    content = onnx_export.export_sklearn_to_onnx(model, features)
    converted = onnx.OnnxModel(content)
    probabilities = None
    if hasattr(model, "predict_proba") and hasattr(converted, "predict_proba"):
        probabilities = (model.predict_proba(features), converted.predict_proba(features))
    onnx.require_same_onnx_predictions(model.predict(features), converted.predict(features), probabilities)
    return content


def _compute_clustering_metrics(model: Any, features: Any) -> dict[str, float]:
    from sklearn.metrics import silhouette_score
    from sklearn.pipeline import Pipeline

    if not hasattr(model, "predict"):
        return {}  # it has labels only for the rows that it was fitted to
    sample = features[:2000]
    labels = model.predict(sample)
    clusters = len(set(labels.tolist()))
    values = {"clusters": float(clusters)}
    if 1 < clusters < len(sample):
        clustered = model[:-1].transform(sample) if isinstance(model, Pipeline) and len(model.steps) > 1 else sample
        values["silhouette"] = float(silhouette_score(clustered, labels))
    return values


def _call_own_sklearn_score(model: Any, features: Any) -> dict[str, float]:
    return {"score": float(model.score(features))} if hasattr(model, "score") else {}
