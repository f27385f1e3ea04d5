"""The HTTP server of a model: codec → batcher → predictor, and what operating it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlapp.serving.application import Application
    from mlapp.serving.asgi import create_asgi

__all__ = ["Application", "create_asgi"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlapp.serving import asgi  # late: the parent of several workers needs none of it

    return getattr(asgi, name)
