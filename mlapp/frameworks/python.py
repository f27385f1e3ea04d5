"""The adapter to models without a framework: any object with `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mlapp.errors import DeclarationError, ModelError
from mlapp.frameworks import joblib_files
from mlapp.frameworks.framework import SAVE_OTHERWISE, Framework


class PythonFramework(Framework):
    """Calls the object's `fit(features, target)`, `score` and `predict`, if it has them."""

    name: ClassVar[str] = "python"
    libraries: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[tuple[str, ...]] = ("", "joblib")

    def owns(self, kind: type) -> bool:
        return True

    def trainer(self, model: Any, features: Any, target: Any = None) -> Any:
        if not hasattr(model, "fit"):
            raise DeclarationError(
                f"The model, a {type(model).__name__}, has no fit method.",
                "Write an @app.trainer that returns the fitted model.",
            )
        fitted = model.fit(features) if target is None else model.fit(features, target)
        return model if fitted is None else fitted

    def evaluator(self, model: Any, features: Any, target: Any = None) -> dict[str, float]:
        if target is None or not hasattr(model, "score"):
            return {}
        return {"score": float(model.score(features, target))}

    def predictor(self, model: Any, features: Any) -> Any:
        if hasattr(model, "predict"):
            return model.predict(features)
        if callable(model):
            return model(features)
        raise DeclarationError(
            f"The model, a {type(model).__name__}, has no predict method.",
            "Write an @app.predictor that returns one prediction a row.",
        )

    def save(self, model: Any, folder: Path, format: str, trusted: Sequence[str]) -> None:
        self._require_joblib_format(model, format)
        joblib_files.save_joblib(model, folder)

    def require_savable(self, model: Any, format: str, trusted: Sequence[str]) -> None:  # most can be
        self._require_joblib_format(model, format)
        joblib_files.require_joblib_savable(model)

    def _require_joblib_format(self, model: Any, format: str) -> None:
        if format != "joblib":
            raise ModelError(
                f"The model, a {type(model).__name__}, belongs to no framework that mlapp can save safely.",
                SAVE_OTHERWISE,
            )

    def load(self, folder: Path, format: str, trusted: Sequence[str]) -> Any:
        return joblib_files.load_joblib(folder / joblib_files.FILE)
