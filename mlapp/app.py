"""App, the user's entry point. Its base class Pipeline holds the declarations; App adds the operations."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from mlapp import config, provenance
from mlapp.app_location import find_project_root
from mlapp.config import Monitor, Settings
from mlapp.pipeline import Pipeline

if TYPE_CHECKING:
    from mlapp.client import Remote
    from mlapp.model import TrainedModel
    from mlapp.prediction import Predictor
    from mlapp.store import ModelVersion, Store


class App(Pipeline):
    """An app: functions marked as stages, and the operations on them.

        app = App("digits", target="target")

        @app.data_reader
        def read(limit: int | None = None) -> pd.DataFrame: ...

        @app.model
        def build(C: float = 1.0) -> LogisticRegression: ...

        trained = app.train(C=0.1)
        app.predict(trained.schema.features.example_inputs())

    Args:
        name: the model's name in the store, in URLs and on clusters: letters, digits, `.`, `_` and `-`.
        target: the column or columns to predict; None for clustering and similar tasks.
        features: the only columns to use, in training and prediction; by default all except the target.
        predict: what the default predictor returns: `labels` for the model's own predictions, `proba` for the
            probability of each class by name.
    """

    _trained: TrainedModel | None = None
    _predictor: Predictor | None = None
    """The model that was trained last, once it has predicted."""
    _root: Path | None = None
    _settings: Settings | None = None
    _file: str | None = None

    def __init__(
        self,
        name: str,
        *,
        target: str | Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        predict: Literal["labels", "proba"] = "labels",
    ) -> None:
        super().__init__(name, target=target, features=features, predict=predict)
        self._file = _find_file_constructing_app(self, sys._getframe(1))

    @property
    def root(self) -> Path:
        """The folder of the app's project; the current folder if the app is in no project."""
        if self._root is not None:
            return self._root
        project_root = None if self._file is None else find_project_root(Path(self._file).resolve().parent)
        return Path.cwd() if project_root is None else project_root

    @property
    def settings(self) -> Settings:
        """The settings in mlapp.yaml of the app's folder.

        Raises:
            ConfigError: a setting is wrong.
        """
        return config.load_settings(self.root) if self._settings is None else self._settings

    @property
    def monitor_settings(self) -> Monitor:
        return self.settings.monitor

    def set_project(self, root: Path, settings: Settings) -> None:
        """Set the app's folder and settings. A command that imports the app knows both."""
        self._root, self._settings = root, settings

    def train(
        self,
        parameters: Mapping[str, Any] | None = None,
        /,
        *,
        from_: str | int | None = None,
        like: str | int | None = None,
        **named: Any,
    ) -> TrainedModel:
        """Train in this process, and return the trained model; `save` stores it as a version.

        Args:
            from_: the version to continue training from, instead of a new model.
            like: the version whose parameters to reuse; parameters given here override them.
            parameters: parameters by name, for names that Python does not allow, such as `{"data_reader.limit": 10}`.
            named: parameters of the pipeline, such as `C=0.1`.

        Raises:
            MlappError: a stage is missing or raises, a parameter is wrong, or the model would answer differently on a
                server.
        """
        from mlapp import training
        from mlapp.store.manifest import list_manifest_parameters

        previous = None if from_ is None else self.store().get(self.name, from_)
        recorded = {} if like is None else list_manifest_parameters(self.store().get(self.name, like).manifest)
        self._predictor = None
        self._trained = training.run(
            self,
            {**recorded, **(parameters or {}), **named},
            previous=previous,
        )
        return self._trained

    def save(self, trained: TrainedModel | None = None) -> ModelVersion:
        """Store a trained model as the next version; by default the model trained last.

        Raises:
            DeclarationError: nothing was trained.
            StoreError: it cannot be stored.
        """
        from mlapp.errors import DeclarationError, UsageError

        if isinstance(trained, (str, Path)):
            raise UsageError(
                f"app.save('{trained}') takes a trained model, not a path.",
                "app.save() stores the model as the next version; `mlapp models pull` copies it to another store.",
            )
        trained = trained or self._trained
        if trained is None:
            raise DeclarationError(
                f"App '{self.name}' has not trained a model in this process.", "Call app.train() first."
            )
        return self.store().put(trained, git=provenance.read_git_state(self.root))

    def load(self, version: str | int = "latest") -> Predictor:
        """A stored version, ready to predict.

        Raises:
            UsageError: no such version or alias.
            StoreError: the store cannot be read.
            ModelError: the model cannot be loaded.
        """
        from mlapp.prediction import load_predictor

        if isinstance(version, Path) or (isinstance(version, str) and _is_model_file_name(version)):
            from mlapp.errors import UsageError

            raise UsageError(
                f"app.load('{version}') takes a version, an alias or 'latest', not a file.",
                f"To use a model file, declare it with app.model('{version}') instead of a model function, then run "
                f"`mlapp train`.",
            )
        return load_predictor(self, self.store().get(self.name, version), extra=self.settings.serve.extra)

    def predict(self, inputs: Any = None, /, *, version: str | int | None = None, **parameters: Any) -> Any:
        """Predictions as the predictor returns them: a list, an array, a Series or a DataFrame with one entry per row.

        Args:
            inputs: records, rows, columns or a DataFrame, as the server accepts them. When absent, the data that the
                data_reader returns for `parameters`, parsed as in the version's training.
            version: a version of the store; by default the model trained last in this process, or the latest version.

        Raises:
            InputError: the inputs do not fit the schema.
            UsageError: unknown parameters or version.
        """
        from mlapp import prediction

        if version is None and self._trained is not None:
            if self._predictor is None:
                self._predictor = prediction.make_predictor(self._trained, extra=self.settings.serve.extra)
            predictor = self._predictor
        else:
            predictor = self.load("latest" if version is None else version)
        if inputs is None:
            from mlapp import training

            return predictor.predict_features(
                training.read_features(self, parameters, trained_with=predictor.parameters)
            )
        if parameters:
            from mlapp.errors import UsageError

            raise UsageError(
                f"app.predict got both inputs and {', '.join(parameters)}.",
                "Give either inputs or the data_reader's parameters.",
            )
        return predictor.predict(inputs)

    @staticmethod
    def remote(url: str, *, timeout: float = 30.0, api_key: str | None = None) -> Remote:
        """Another app's server, to call from a predictor: `app.remote("http://digits:8000").predict(features)`.

        Raises:
            UsageError: not an http or https URL.
        """
        from mlapp.client import Remote

        return Remote(url, timeout=timeout, api_key=api_key)

    def store(self) -> Store:
        """The model store of the app's project: the setting `store:` in mlapp.yaml."""
        from mlapp.store import open_store

        return open_store(self.settings.store, self.root)


def _find_file_constructing_app(app: App, frame: FrameType | None) -> str | None:
    """The file that creates the app, ignoring constructors of App's subclasses; None in a notebook or a console."""
    while frame is not None and frame.f_locals.get("self") is app:
        frame = frame.f_back
    file = None if frame is None else frame.f_globals.get("__file__")
    return file if isinstance(file, str) and not {"site-packages", "dist-packages"} & set(Path(file).parts) else None


def _is_model_file_name(text: str) -> bool:
    """Whether a text names a file rather than a version or an alias."""
    return "/" in text or Path(text).suffix in (".joblib", ".pkl", ".skops", ".onnx", ".pt", ".pth", ".h5", ".keras")
