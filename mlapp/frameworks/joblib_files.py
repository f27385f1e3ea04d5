"""Saves and loads models with joblib. This is opt-in, because loading a pickle runs the code in it."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

from mlapp.errors import MissingExtraError, ModelError
from mlapp.frameworks.framework import unreadable_framework_file_error

FILE = "model.joblib"
log = logging.getLogger("mlapp")


def save_joblib(model: Any, folder: Path) -> None:
    """Write `model.joblib`.

    Raises:
        ModelError: a part of the model cannot be pickled.
    """
    _dump_joblib(model, folder / FILE)


def require_joblib_savable(model: Any) -> None:
    """Check that an unfitted model can be pickled.

    Raises:
        ModelError: a part of it cannot be pickled.
    """
    _dump_joblib(model, io.BytesIO())


def _dump_joblib(model: Any, target: Path | io.BytesIO) -> None:
    joblib = _import_joblib()
    try:
        joblib.dump(model, target)
    except OSError:
        raise
    except Exception as error:  # pickling runs methods of the model's classes
        raise ModelError(
            f"The model, a {type(model).__name__}, cannot be pickled: {error}",
            "Keep lambdas, open files and connections out of it, or write an @app.saver and an @app.loader.",
        ) from error


def load_joblib(file: Path) -> Any:
    """Load a joblib file, with a warning that it can run any code.

    Raises:
        ModelError: it is not a joblib file, or needs a module that is not installed.
    """
    joblib = _import_joblib()
    log.warning("%s is a pickle: loading it runs the code in it. Load only files that you trust.", file.name)
    try:
        return joblib.load(file)
    except OSError:
        raise
    except Exception as error:  # unpickling runs code of the model's classes
        raise unreadable_framework_file_error(file, error) from error


def _import_joblib() -> Any:
    try:
        import joblib
    except ImportError:
        raise MissingExtraError("The format joblib", "sklearn") from None
    return joblib
