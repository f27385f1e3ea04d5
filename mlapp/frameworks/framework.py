"""What an adapter gives: the defaults of the stages that depend on the model's framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import ModelError
from mlapp.frameworks import metrics


class Framework(ABC):
    """One framework. Its own packages are imported inside the methods only.

    `trainer`, `evaluator` and `predictor` are stages like a user's: the keyword parameters that `trainer` and
    `evaluator` declare beyond what their roles receive become parameters of the pipeline.
    """

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions matter to a saved model."""
    formats: ClassVar[tuple[str, ...]]
    """Formats that `save` knows; the first is the default, and loads no code."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Files of a ready model that `load` can read."""
    extra: ClassVar[str | None] = None
    """The extra of mlapp that installs the framework."""
    weights_only: ClassVar[bool] = False
    """`save` keeps weights alone: the app's model function builds the model, and `restore` reads them into it."""
    survives_fork: ClassVar[bool] = False
    """A model that was loaded and has not predicted works in a forked child: it holds no threads and no devices."""
    trains_from_weights: ClassVar[bool] = False
    """`proceed` does not fit: it gives the model the weights to begin with, and the trainer goes on."""

    @abstractmethod
    def owns(self, kind: type) -> bool:
        """Whether this class, a model's or one of its bases, is this framework's. Decided by names; imports nothing."""

    @abstractmethod
    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        """Fit the model; returns the fitted model. `target` is None for an app without one."""

    def check(self, parameters: Mapping[str, Any]) -> None:  # noqa: B027  # most trainers take no numbers
        """Refuse parameters of `trainer` that cannot be; called before the data is read.

        Raises:
            UsageError: names the parameter.
        """

    def evaluator(self, model: Any, features: Any, target: Any = None) -> dict[str, float]:
        """The framework's usual metrics for one split: those of `metrics.classification` where the model gives classes,
        those of `metrics.regression` where it gives numbers; none without a target.
        """
        if target is None:
            return {}
        predicted = self.predictor(model, features)
        if not self.classifies(model):
            return metrics.regression_metrics(target, predicted)
        return metrics.classification_metrics(target, predicted, self.scores(model, features))

    def scores(self, model: Any, features: Any) -> Any:
        """Of a classifier of two classes, each row's score of the second one; None where it gives none."""
        classes = getattr(model, "classes_", None)
        if hasattr(model, "predict_proba") and (classes is None or len(classes) == 2):
            found = model.predict_proba(features)
            return found[:, 1] if getattr(found, "ndim", 0) == 2 and found.shape[1] == 2 else None
        if hasattr(model, "decision_function") and classes is not None and len(classes) == 2:
            found = model.decision_function(features)
            return found if getattr(found, "ndim", 0) == 1 else None
        return None

    def probabilities(self, model: Any, features: Any) -> Any:
        """The probability of each class, as a DataFrame with the classes' names: the predictor of `predict="proba"`.

        Raises:
            ModelError: the model gives none, or does not tell its classes.
        """
        import pandas as pd

        classes = getattr(model, "classes_", None)
        if not hasattr(model, "predict_proba") or classes is None:
            raise no_probabilities(model)
        found = model.predict_proba(features)
        if isinstance(found, list) or found.shape[1] != len(classes):
            raise no_probabilities(model)
        return pd.DataFrame(found, columns=[str(label) for label in classes])

    def classifies(self, model: Any) -> bool:
        """Whether the fitted model's predictions are classes."""
        return hasattr(model, "predict_proba")

    @abstractmethod
    def predictor(self, model: Any, features: Any) -> Any:
        """Predictions, one a row."""

    def require_predict(self, model: Any, *, gives_probabilities: bool) -> None:  # noqa: B027  # most models can
        """Check that an unfitted model has what the default predictor calls; called before the data is read.

        Args:
            gives_probabilities: the App says `predict="proba"`.

        Raises:
            ModelError: it has not.
        """

    @abstractmethod
    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        """Write the model into an empty folder.

        Raises:
            ModelError: it cannot be saved in that format, or could not be loaded again with `trusted` alone.
        """

    def require_savable(self, model: Any, format: str, trusted: Sequence[str]) -> None:  # noqa: B027  # most can be
        """Check that an unfitted model could be saved and loaded once it is fitted; called before the data is read.

        Raises:
            ModelError: it never could.
        """

    @abstractmethod
    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        """Read what `save` wrote. Types beside the framework's own are imported only if `trusted` names them.

        Raises:
            ModelError: not readable, or it holds types that are not trusted.
        """

    def restore(self, model: Any, folder: Path) -> Any:
        """Read the weights that `save` wrote into a model that the app built; for adapters with `weights_only`.

        Raises:
            ModelError: not readable, or they do not fit the model.
        """
        raise NotImplementedError(f"{self.name} saves whole models")

    def load_file(self, file: Path, trusted: Sequence[str]) -> Any:
        """Read the file of a ready model, one of `suffixes`.

        Raises:
            ModelError: as `load`.
        """
        raise NotImplementedError(f"{self.name} declares no suffixes")

    def proceed(self, model: Any, previous: Any, features: Any, target: Any = None) -> Any:
        """Go on learning from `previous`, with the settings of the unfitted `model`; returns the fitted model.

        An adapter that `trains_from_weights` returns `model` with the weights of `previous`, for the trainer to go on.

        Raises:
            ModelError: models of this kind cannot go on.
        """
        raise cannot_proceed_error(model, f"the framework {self.name} has no way to")

    def to_onnx(self, model: Any, features: Any) -> bytes:
        """The model as ONNX; the first rows of `features` show what it takes.

        Raises:
            ModelError: it cannot be converted. MissingExtraError: the converter is not installed.
        """
        raise ModelError(
            f"Models of {self.name} cannot be converted to ONNX: a {type(model).__name__}.", "Serve it as it is."
        )

    def module_owns(self, kind: type, *packages: str) -> bool:
        """Whether the class is defined in one of these packages."""
        return kind.__module__.partition(".")[0] in packages


def unreadable_file_error(file: Path, error: Exception) -> ModelError:
    """The error of a model's file that its library could not load."""
    return ModelError(
        f"{file} cannot be loaded: {type(error).__name__}: {error}",
        "Train again here, or install what it was trained with.",
    )


def will_have_method(model: Any, name: str) -> bool:
    """Whether an unfitted model has a method, or gets it from an estimator that fitting chooses.

    scikit-learn's stacking passes `predict` to its `final_estimator`, which may be None until then.
    """
    try:
        getattr(model, name)
    except AttributeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return isinstance(cause, AttributeError) and cause.name == name and cause.obj is None
    return True


def no_probabilities(model: Any) -> ModelError:
    """The error of a model that is asked for probabilities with class names, and has none."""
    return ModelError(
        f"The App says predict='proba'; a {type(model).__name__} gives no probabilities with the names of its classes.",
        "Choose a model with predict_proba, as SVC(probability=True); or write an @app.predictor that returns them.",
    )


def cannot_proceed_error(model: Any, reason: object) -> ModelError:
    """The error of a model that cannot go on learning."""
    return ModelError(
        f"A {type(model).__name__} cannot be trained further: {reason}.",
        "Train it from the start, without --from, or choose a model that can continue; docs/frameworks.md lists them.",
    )
