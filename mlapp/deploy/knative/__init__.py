"""The Knative target: a `serving.knative.dev/v1` Service, which Google Cloud Run also accepts."""

from mlapp.deploy.knative.settings import KnativeSettings
from mlapp.deploy.knative.target import KnativeTarget

__all__ = ["KnativeSettings", "KnativeTarget"]
