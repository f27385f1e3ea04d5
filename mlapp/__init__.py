"""mlapp: from an empty folder to a monitored model endpoint on Kubernetes, in four commands."""

from mlapp.app import App
from mlapp.errors import MlappError
from mlapp.pipeline import Resources
from mlapp.pipeline.search import Search
from mlapp.progress import report

__all__ = ["App", "MlappError", "Resources", "Search", "report"]
