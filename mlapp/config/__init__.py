"""mlapp.yaml as typed settings."""

from mlapp.config.canary import CanaryLimits
from mlapp.config.load import load_settings, merge_settings
from mlapp.config.monitor import Alert, Drift, Monitor, Promote, Retrain
from mlapp.config.section import END, FILE, PREFIX, Section, decode_section, describe_text
from mlapp.config.settings import Flyte, Image, Serve, Settings, Store
from mlapp.distribution import require_own_distribution

require_own_distribution()  # the unrelated package imports its own `mlapp.config`, and gets this one

__all__ = [
    "END",
    "FILE",
    "PREFIX",
    "Alert",
    "CanaryLimits",
    "Drift",
    "Flyte",
    "Image",
    "Monitor",
    "Promote",
    "Retrain",
    "Section",
    "Serve",
    "Settings",
    "Store",
    "decode_section",
    "describe_text",
    "load_settings",
    "merge_settings",
]
