"""Shipping: a Shipment goes to a Target, which runs it, reports its status and can roll it back."""

from mlapp.deploy.abilities import (
    CanaryRenderTarget,
    CanaryTarget,
    CheckTarget,
    CodeTarget,
    DiffTarget,
    EjectTarget,
    LogTarget,
    PredictTarget,
    RegistryPlace,
    RegistryTarget,
)
from mlapp.deploy.target import (
    DeployError,
    Event,
    LogLine,
    Release,
    Replica,
    Shipment,
    Status,
    Target,
    open_target,
    target_names,
)

__all__ = [
    "CanaryRenderTarget",
    "CanaryTarget",
    "CheckTarget",
    "CodeTarget",
    "DeployError",
    "DiffTarget",
    "EjectTarget",
    "Event",
    "LogLine",
    "LogTarget",
    "PredictTarget",
    "RegistryPlace",
    "RegistryTarget",
    "Release",
    "Replica",
    "Shipment",
    "Status",
    "Target",
    "open_target",
    "target_names",
]
