"""The decorators. Each registers a function of the user in a role and returns it unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from mlapp.errors import DeclarationError, suggest_nearest
from mlapp.pipeline.option_checks import check_option
from mlapp.pipeline.stage import ROLES
from mlapp.pipeline.stage_options import NO_OPTIONS, FeatureLoaderOptions, ModelOptions, PredictorOptions, TaskOptions
from mlapp.pipeline.stage_tasks import TaskArguments, make_stage_task

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mlapp.pipeline.pipeline import Pipeline

F = TypeVar("F", bound=Callable[..., Any])


class Decorator:
    """`@app.<role>`: marks a function that needs no options."""

    def __init__(self, pipeline: Pipeline, role: str) -> None:
        self._pipeline = pipeline
        self._role = ROLES[role]

    def __call__(self, function: F, /) -> F:
        self._pipeline.declare(self._role, function, NO_OPTIONS)
        return function

    def _mark(self, function: F | None, options: TaskOptions) -> F | Callable[[F], F]:
        """Declare the function of `@app.role`. For `@app.role(…)`, which has no function yet, return the decorator."""

        def declare(function: F) -> F:
            self._pipeline.declare(self._role, function, options)
            return function

        return declare if function is None else declare(function)


class TaskDecorator(Decorator):
    """`@app.<role>` of a training stage, which can also run as a separate task on a cluster."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, /, **task: Unpack[TaskArguments]) -> Callable[[F], F]: ...
    def __call__(self, function: F | None = None, /, **options: Unpack[TaskArguments]) -> F | Callable[[F], F]:
        return self._mark(function, TaskOptions(make_stage_task(self._role.name, options)))


class TransformerDecorator(TaskDecorator):
    """`@app.feature_transformer`: converts features to the model's input, in training and in serving.

    Rows are independent: compute each row's values from that row alone, with no `shift`, `rolling`, `rank` or
    `fillna(features.mean())`. A server puts the rows of several requests into one table. If training finds that a
    row's values depend on the others, it warns, and a server of that version does not batch requests.
    """


class ReaderDecorator(TaskDecorator):
    """`@app.data_reader`, and `app.data_reader.<source>(…)` for every source that is installed."""

    def __getattr__(self, source: str) -> Callable[..., Callable[..., Any]]:
        if source.startswith("_"):
            raise AttributeError(source)
        from mlapp import plugins

        sources = plugins.list_plugins(plugins.SOURCES)
        if source not in sources:
            raise DeclarationError(
                f"The data source '{source}' does not exist.{suggest_nearest(source, sources)}",
                f"Installed sources: {', '.join(sorted(sources))}.",
            )

        def declare(*args: Any, **options: Any) -> Callable[..., Any]:
            reader: Callable[..., Any] = plugins.load_plugin(plugins.SOURCES, source)(*args, **options)
            return self(reader)

        return declare


class ModelDecorator(Decorator):
    """`@app.model`: a function, a class or a file that provides the model."""

    @overload
    def __call__(self, builder: F, /) -> F: ...
    @overload
    def __call__(self, builder: str | Path, /, *, trusted: Sequence[str | type] = ()) -> Callable[[], Any]: ...
    @overload
    def __call__(
        self,
        builder: F,
        /,
        *,
        format: str | None = None,
        trusted: Sequence[str | type] = (),
        trained: bool = False,
        **task: Unpack[TaskArguments],
    ) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        format: str | None = None,
        trusted: Sequence[str | type] = (),
        trained: bool = False,
        **task: Unpack[TaskArguments],
    ) -> Callable[[F], F]: ...
    def __call__(
        self,
        builder: F | str | Path | None = None,
        /,
        *,
        format: str | None = None,
        trusted: Sequence[str | type] = (),
        trained: bool = False,
        **task: Unpack[TaskArguments],
    ) -> Any:
        """Mark the provider of the model.

        Args:
            builder: a function or class with the hyperparameters as its parameters; or the file of a trained model.
            format: the format to save in; by default, the framework's own. `joblib` opts in to pickle.
            trusted: additional types that loading can import, as classes or `module.Class`.
            trained: whether the builder returns a trained model, so that no trainer runs.
            task: how the training runs on a cluster if the app has no trainer; see `Task`.
        """
        options = ModelOptions(
            make_stage_task(self._role.name, task, ("format", "trusted", "trained")),
            format,
            _name_trusted_types(trusted),
            trained,
        )
        if isinstance(builder, (str, Path)):
            file = Path(builder)

            def ready_model() -> Path:
                return file

            self._pipeline.declare(self._role, ready_model, replace(options, is_trained=True, file=file))
            return ready_model

        return self._mark(builder, options)


class FeatureLoaderDecorator(Decorator):
    """`@app.feature_loader`: converts the inputs that a client sends to features."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, /, *, example: Any = None, schema: Mapping[str, Any] | None = None) -> Callable[[F], F]: ...
    def __call__(
        self, function: F | None = None, /, *, example: Any = None, schema: Mapping[str, Any] | None = None
    ) -> F | Callable[[F], F]:
        """Mark the feature_loader.

        Args:
            example: the `inputs` of a valid request as JSON values, for the page, the documentation and the warm-up. By
                default, training tries an example of the features.
            schema: JSON Schema of the inputs, for the documentation.

        Raises:
            DeclarationError: JSON cannot represent the example, or the schema is not a dict.
        """
        has_schema = schema is None or isinstance(schema, Mapping)
        check_option(has_schema, "@app.feature_loader(schema=…)", schema, "a JSON Schema as a dict")
        try:
            msgspec.json.encode(example)
        except (TypeError, msgspec.MsgspecError) as error:
            raise DeclarationError(
                f"@app.feature_loader: the example is not JSON: {error}",
                "Give what a client sends: lists, numbers and strings.",
            ) from None
        options = FeatureLoaderOptions(example=example, schema=None if schema is None else dict(schema))

        return self._mark(function, options)


class PredictorDecorator(Decorator):
    """`@app.predictor`: a function, an `async` function, or one that yields (its answer is streamed).

    Rows are independent, as for `@app.feature_transformer`: each prediction depends on its own row alone.
    """

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        /,
        *,
        batch: bool = True,
        max_batch: int | None = None,
        wait: float | None = None,
        **task: Unpack[TaskArguments],
    ) -> Callable[[F], F]: ...
    def __call__(
        self,
        function: F | None = None,
        /,
        *,
        batch: bool = True,
        max_batch: int | None = None,
        wait: float | None = None,
        **task: Unpack[TaskArguments],
    ) -> F | Callable[[F], F]:
        """Mark the predictor.

        Args:
            batch: pass waiting requests as one table; False passes one request at a time.
            max_batch: maximum rows per call; `serve.max_batch` when absent.
            wait: seconds that a request can wait for others; `serve.batch_wait` when absent.
            task: how batch prediction runs on a cluster; see `Task`. A server ignores it.
        """
        own_task = make_stage_task(self._role.name, task, ("batch", "max_batch", "wait"))
        return self._mark(function, PredictorOptions(own_task, batch, max_batch, wait))


def _name_trusted_types(trusted: Any) -> tuple[str, ...]:
    """The trusted types as `module.Class`.

    Raises:
        DeclarationError: not a list of classes, functions and names.
    """
    is_list = isinstance(trusted, Sequence) and not isinstance(trusted, str)
    is_list = is_list and all(isinstance(kind, str) or hasattr(kind, "__qualname__") for kind in trusted)
    check_option(is_list, "@app.model(trusted=…)", trusted, "a list of classes or names, such as ['package.Class']")
    return tuple(kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}" for kind in trusted)
