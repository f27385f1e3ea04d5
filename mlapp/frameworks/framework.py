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
        """The framework's usual metrics for one split: accuracy and F1 where the model gives classes; R², MAE and RMSE
        where it gives numbers; none without a target.
        """
        if target is None:
            return {}
        predicted = self.predictor(model, features)
        measure = metrics.classification_metrics if self.classifies(model) else metrics.regression_metrics
        return measure(target, predicted)

    def classifies(self, model: Any) -> bool:
        """Whether the fitted model's predictions are classes."""
        return hasattr(model, "predict_proba")

    @abstractmethod
    def predictor(self, model: Any, features: Any) -> Any:
        """Predictions, one a row."""

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


def cannot_proceed_error(model: Any, reason: object) -> ModelError:
    """The error of a model that cannot go on learning."""
    return ModelError(
        f"A {type(model).__name__} cannot be trained further: {reason}.",
        "Train it anew, without --from; or choose a model that can, as docs/frameworks.md lists.",
    )
