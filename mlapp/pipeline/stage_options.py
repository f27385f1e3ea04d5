"""Options of decorators, one class for each kind of stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlapp.pipeline.option_checks import check_option, is_finite_number, is_whole_number
from mlapp.pipeline.stage_tasks import Task


@dataclass(frozen=True)
class TaskOptions:
    """The options of any stage.

    Attributes:
        task: how the stage runs as a task on a cluster; None for a stage that never does.
    """

    task: Task | None = None


@dataclass(frozen=True)
class ModelOptions(TaskOptions):
    """The options of `@app.model`.

    Attributes:
        format: the format to save in; the framework's own when None.
        trusted: additional types that loading can import, as `module.Class`.
        is_trained: whether the function or file provides a trained model; then no trainer runs.
        file: the file of a ready model; None if a function provides the model.

    Raises:
        DeclarationError: a value has the wrong type.
    """

    format: str | None = None
    trusted: tuple[str, ...] = ()
    is_trained: bool = False
    file: Path | None = None

    def __post_init__(self) -> None:
        is_name = self.format is None or isinstance(self.format, str)
        check_option(is_name, "@app.model(format=…)", self.format, "the name of a format, such as format='joblib'")
        check_option(isinstance(self.is_trained, bool), "@app.model(trained=…)", self.is_trained, "True or False")


@dataclass(frozen=True)
class PredictorOptions(TaskOptions):
    """The options of `@app.predictor`.

    Attributes:
        batch: whether the predictor gets requests that wait at the same time as one table.
        max_batch: maximum rows per call; `serve.max_batch` when None.
        wait: seconds that a request can wait for others; `serve.batch_wait` when None.

    Raises:
        DeclarationError: a value has the wrong type or is out of range.
    """

    batch: bool = True
    max_batch: int | None = None
    wait: float | None = None

    def __post_init__(self) -> None:
        check_option(isinstance(self.batch, bool), "@app.predictor(batch=…)", self.batch, "True or False")
        is_count = self.max_batch is None or is_whole_number(self.max_batch, 1)
        check_option(is_count, "@app.predictor(max_batch=…)", self.max_batch, "a number of rows, 1 or more")
        is_time = self.wait is None or (is_finite_number(self.wait) and self.wait >= 0)
        check_option(is_time, "@app.predictor(wait=…)", self.wait, "seconds, 0 or more")


@dataclass(frozen=True)
class FeatureLoaderOptions(TaskOptions):
    """The options of `@app.feature_loader`.

    Attributes:
        example: the `inputs` of a valid request, as JSON values; None when not declared.
        schema: JSON Schema of the inputs; None when not declared.
    """

    example: Any = None
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class DefaultOptions(TaskOptions):
    """The options of a framework's default stage.

    Attributes:
        framework: the framework's name.
        takes_array: whether the stage receives features as an array, like the app's predictor.
        model: title of the app's model function, for messages.
    """

    framework: str = ""
    takes_array: bool = False
    model: str = ""


NO_OPTIONS = TaskOptions()
