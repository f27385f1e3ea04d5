"""Shipping: a Shipment goes to a Target, which runs it, shows it, and can go back."""

from mlapp.deploy.target import (
    CanaryTarget,
    DeployError,
    DiffTarget,
    EjectTarget,
    Event,
    LogLine,
    LogTarget,
    PredictTarget,
    Progress,
    Release,
    Replica,
    Shipment,
    Status,
    Target,
    open_target,
    target_names,
)

__all__ = [
    "CanaryTarget",
    "DeployError",
    "DiffTarget",
    "EjectTarget",
    "Event",
    "LogLine",
    "LogTarget",
    "PredictTarget",
    "Progress",
    "Release",
    "Replica",
    "Shipment",
    "Status",
    "Target",
    "open_target",
    "target_names",
]
