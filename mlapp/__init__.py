"""mlapp: from an empty folder to a monitored model endpoint on Kubernetes, in four commands."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlapp.app import App
    from mlapp.errors import MlappError
    from mlapp.pipeline import Resources
    from mlapp.pipeline.search import Search
    from mlapp.progress import report

__all__ = ["App", "MlappError", "Resources", "Search", "report"]

_PLACES = {
    "App": "mlapp.app",
    "MlappError": "mlapp.errors",
    "Resources": "mlapp.pipeline",
    "Search": "mlapp.pipeline.search",
    "report": "mlapp.progress",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562), because `mlapp --help` needs none of them."""
    if name not in _PLACES:
        raise AttributeError(f"module 'mlapp' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value
