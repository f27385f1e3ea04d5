"""The Seldon Core 2 target: a Model from an export for MLServer, and an Experiment as the canary."""

from mlapp.deploy.seldon.settings import SeldonSettings
from mlapp.deploy.seldon.target import SeldonTarget

__all__ = ["SeldonSettings", "SeldonTarget"]
