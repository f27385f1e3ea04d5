"""Saves and checks model files in the format of skops, with the types that the app declares trusted."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlapp.errors import MissingExtraError, ModelError
from mlapp.frameworks import loaded_estimator, trusted_types

ZONED_TIMES = {"pandas.Timestamp", "pandas._libs.tslibs.timestamps.Timestamp"}  # pandas 3, pandas 2
"""Types that skops cannot load: it calls the constructor without arguments. Times without a zone are NumPy values."""


@contextmanager
def _hide_libraries_from_skops() -> Iterator[None]:
    """Block imports of PyTorch and similar packages while skops imports all modules of scikit-learn.

    Importing PyTorch takes longer than everything else, and skops skips modules that cannot be imported.
    """
    names = [f"sklearn.externals.array_api_compat.{library}" for library in ("torch", "cupy", "dask")]
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def import_skops() -> Any:
    try:
        with _hide_libraries_from_skops():
            from skops import io
    except ImportError:
        raise MissingExtraError("Saving and loading scikit-learn models", "sklearn") from None
    return io


def require_skops_savable(model: Any, trusted: Sequence[str]) -> None:
    """Check that an unfitted model can be saved and loaded, in memory.

    Raises:
        ModelError: it cannot be saved or loaded.
    """
    content = io.BytesIO()
    dump_skops(model, content)
    skops = import_skops()
    names = require_trusted_skops_types(skops, content.getvalue(), trusted, type(model).__name__)
    loaded_estimator.require_sound_loaded_estimator(model, trusted)
    try:
        skops.loads(content.getvalue(), trusted=names)
    except Exception as error:  # skops and the classes that it builds raise many types
        raise ModelError(
            f"The model, a {type(model).__name__}, can be saved but not loaded: {type(error).__name__}: {error}",
            "Use functions and classes defined at the top of a module, or write an @app.saver and an @app.loader.",
        ) from error


def dump_skops(model: Any, target: Path | io.BytesIO) -> None:
    skops = import_skops()
    try:
        skops.dump(model, target)
    except OSError:
        raise
    except Exception as error:  # skops calls methods of the model's classes
        raise ModelError(
            f"The model, a {type(model).__name__}, cannot be saved with skops: {error}",
            "Keep lambdas, open files and connections out of it, or opt in to pickle: @app.model(format='joblib').",
        ) from error


def require_trusted_skops_types(io: Any, source: Path | bytes, trusted: Sequence[str], model_name: str) -> list[str]:
    """The types to trust when loading a file: those that skops does not trust, but the app or `trusted_types` does.

    Args:
        io: the module `skops.io`.
        source: the file, or its content.
        trusted: the types that the app declares.
        model_name: the name of the model in errors.

    Raises:
        ModelError: the file has other types.
    """
    arguments = {"data": source} if isinstance(source, bytes) else {"file": source}
    names = io.get_untrusted_types(**arguments)
    unknown = [name for name in names if name not in trusted and not trusted_types.is_trusted_type(name)]
    if not ZONED_TIMES.isdisjoint(names):
        raise ModelError(
            f"The model {model_name} contains times with a time zone, such as an encoder's categories, which skops "
            "cannot load.",
            "Convert that column to text or to times without a time zone in the feature_transformer, or opt in to "
            "pickle: @app.model(format='joblib').",
        )
    if nameless := [name for name in unknown if "<" in name]:
        raise ModelError(
            f"The model {model_name} contains '{nameless[0]}', which has no importable name and cannot be loaded.",
            "Define the function by name at the top of a module, and declare it: @app.model(trusted=[its name]).",
        )
    if unknown:
        name_list = ", ".join(f"'{name}'" for name in unknown)
        raise ModelError(
            f"The model {model_name} contains types that are not declared trusted: {', '.join(unknown)}.",
            f"If you trust them, declare them: @app.model(trusted=[{name_list}]).",
        )
    return list(names)
