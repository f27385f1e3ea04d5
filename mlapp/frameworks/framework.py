"""The interface of adapters to frameworks, with the default stages that depend on the model's framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import ModelError
from mlapp.frameworks import metrics

SAVE_OTHERWISE = "Write an @app.saver and an @app.loader, or opt in to pickle: @app.model(format='joblib')."
"""Advice for a model that no framework can save."""


class Framework(ABC):
    """The adapter to one framework. Its packages are imported only inside the methods.

    `trainer`, `evaluator` and `predictor` are stages like those of a user: additional keyword parameters of `trainer`
    and `evaluator` become parameters of the pipeline.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions matter to a saved model."""
    formats: ClassVar[tuple[str, ...]]
    """Formats of `save`; the first is the default, and loads no code."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of ready models that `load_file` can read."""
    extra: ClassVar[str | None] = None
    """The extra of mlapp that installs the framework."""
    weights_only: ClassVar[bool] = False
    """Whether `save` stores only weights: the app's model function builds the model, and `restore` loads them."""
    survives_fork: ClassVar[bool] = False
    """Whether a loaded model that has not predicted yet works in a forked process: it has no threads and devices."""
    trains_from_weights: ClassVar[bool] = False
    """Whether `proceed` only sets the initial weights, and the trainer continues from them."""

    @abstractmethod
    def owns(self, kind: type) -> bool:
        """Whether this class belongs to the framework. Compares names, and imports nothing."""

    def prepare_server(self) -> None:  # noqa: B027  # most need nothing
        """Prepare a server process for many calls of a loaded model."""

    @abstractmethod
    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        """Fit the model; returns the fitted model. `target` is None for an app without one."""

    def check(self, parameters: Mapping[str, Any]) -> None:  # noqa: B027  # most trainers take no numbers
        """Check the parameters of `trainer`. Called before the data is read.

        Raises:
            UsageError: names an invalid parameter.
        """

    def evaluator(self, model: Any, features: Any, target: Any = None) -> dict[str, float]:
        """The usual metrics of one split: those of `metrics.compute_classification_metrics` if the model predicts
        classes, otherwise those of `metrics.compute_regression_metrics`; none without a target.
        """
        if target is None:
            return {}
        predicted = self.predictor(model, features)
        if not self.classifies(model):
            return metrics.compute_regression_metrics(target, predicted)
        return metrics.compute_classification_metrics(target, predicted, self.scores(model, features))

    def scores(self, model: Any, features: Any) -> Any:
        """Each row's score of the second class of a binary classifier; None without such scores."""
        classes = getattr(model, "classes_", None)
        if hasattr(model, "predict_proba") and (classes is None or len(classes) == 2):
            scores = model.predict_proba(features)
            return scores[:, 1] if getattr(scores, "ndim", 0) == 2 and scores.shape[1] == 2 else None
        if hasattr(model, "decision_function") and classes is not None and len(classes) == 2:
            scores = model.decision_function(features)
            return scores if getattr(scores, "ndim", 0) == 1 else None
        return None

    def probabilities(self, model: Any, features: Any) -> Any:
        """The probabilities of the classes, for `predict="proba"`: a DataFrame with a column for each class.

        Raises:
            ModelError: the model has no probabilities, or no class names.
        """
        import pandas as pd

        classes = getattr(model, "classes_", None)
        if not hasattr(model, "predict_proba") or classes is None:
            raise no_probabilities_error(model)
        probabilities = model.predict_proba(features)
        if isinstance(probabilities, list) or probabilities.shape[1] != len(classes):
            raise no_probabilities_error(model)
        return pd.DataFrame(probabilities, columns=[str(label) for label in classes])

    def classifies(self, model: Any) -> bool:
        """Whether the fitted model's predictions are classes."""
        return hasattr(model, "predict_proba")

    @abstractmethod
    def predictor(self, model: Any, features: Any) -> Any:
        """One prediction per row."""

    def require_predict(self, model: Any, *, gives_probabilities: bool) -> None:  # noqa: B027  # most models can
        """Check that an unfitted model has the method that the default predictor calls. Called before the data is read.

        Args:
            gives_probabilities: whether the App has `predict="proba"`.

        Raises:
            ModelError: the method is missing.
        """

    @abstractmethod
    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        """Write the model into an empty folder.

        Raises:
            ModelError: it cannot be saved in that format, or could not be loaded again with `trusted`.
        """

    def require_savable(self, model: Any, format: str, trusted: Sequence[str]) -> None:  # noqa: B027  # most can be
        """Check that an unfitted model can be saved and loaded after it is fitted. Called before the data is read.

        Raises:
            ModelError: it cannot be saved or loaded.
        """

    @abstractmethod
    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        """Load a saved model. Imports types outside the framework only if `trusted` names them.

        Raises:
            ModelError: it is unreadable, or contains types that are not trusted.
        """

    def restore(self, model: Any, folder: Path) -> Any:
        """Load saved weights into a model that the app has built. For adapters with `weights_only`.

        Raises:
            ModelError: the weights are unreadable, or do not fit the model.
        """
        raise NotImplementedError(f"{self.name} saves whole models")

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        """Load a ready model from a file with one of `suffixes`.

        Raises:
            ModelError: see `load`.
        """
        raise NotImplementedError(f"{self.name} declares no suffixes")

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Continue training from `previous` with the settings of the unfitted `model`; returns the fitted model.

        With `trains_from_weights`, returns `model` with the weights of `previous`, and the trainer continues.

        Raises:
            ModelError: this kind of model cannot continue training.
        """
        raise cannot_proceed_error(model, f"the framework {self.name} does not support it")

    def to_onnx(self, model: Any, features: Any) -> bytes:
        """The model as ONNX. The first rows of `features` define its inputs.

        Raises:
            ModelError: it cannot be converted. MissingExtraError: the converter is not installed.
        """
        raise ModelError(
            f"Models of {self.name} cannot be converted to ONNX: a {type(model).__name__}.",
            "Serve it without ONNX: remove --runtime onnx, or set serve.runtime to native in mlapp.yaml.",
        )

    def module_owns(self, kind: type, *packages: str) -> bool:
        """Whether the class is defined in one of these packages."""
        return kind.__module__.partition(".")[0] in packages


def unreadable_framework_file_error(file: Path, error: Exception) -> ModelError:
    """The error for a model file that its library cannot load."""
    return ModelError(
        f"{file} cannot be loaded: {type(error).__name__}: {error}",
        "Train again here, or install the libraries that it was trained with.",
    )


def will_have_method(model: Any, name: str) -> bool:
    """Whether an unfitted model has a method, or will have it after fitting.

    scikit-learn's stacking delegates `predict` to its `final_estimator`, which can be None before fitting.
    """
    try:
        getattr(model, name)
    except AttributeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return isinstance(cause, AttributeError) and cause.name == name and cause.obj is None
    return True


def no_probabilities_error(model: Any) -> ModelError:
    """The error for a model without the requested probabilities by class name."""
    return ModelError(
        f"The App sets predict='proba', but a {type(model).__name__} does not return probabilities with class names.",
        "Choose a model with predict_proba, as SVC(probability=True); or write an @app.predictor that returns them.",
    )


def cannot_proceed_error(model: Any, reason: object) -> ModelError:
    """The error for a model that cannot continue training."""
    return ModelError(
        f"A {type(model).__name__} cannot be trained further: {reason}.",
        "Train it from the start, without --from. Models with partial_fit or warm_start, XGBoost, LightGBM, PyTorch, "
        "Keras and Hugging Face models can continue.",
    )
