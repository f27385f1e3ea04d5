"""The Seldon Core 2 target: a Model from an MLServer export, and an Experiment for the canary."""

from mlapp.deploy.seldon.settings import SeldonSettings
from mlapp.deploy.seldon.target import SeldonTarget

__all__ = ["SeldonSettings", "SeldonTarget"]
