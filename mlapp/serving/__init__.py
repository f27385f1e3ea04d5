"""The HTTP server of a model: codec → batcher → predictor, with metrics, logs and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlapp.serving.application import Application
    from mlapp.serving.asgi import create_asgi

__all__ = ["Application", "create_asgi"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlapp.serving import asgi  # lazy: the parent of several workers does not need it

    return getattr(asgi, name)
