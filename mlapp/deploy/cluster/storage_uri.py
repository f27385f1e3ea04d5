"""`storage_uri` of targets whose platform downloads the model version."""

from __future__ import annotations

from mlapp.deploy.target import Shipment
from mlapp.errors import UsageError


def fill_storage_uri(uri: str, shipment: Shipment, section: str) -> str:
    """The location of the shipment's version, with `{version}` and `{app}` replaced.

    Raises:
        UsageError: the URI contains `{version}`, and the shipment has no version.
    """
    if "{version}" in uri and shipment.model_version is None:
        raise UsageError(
            f"{shipment.app} has no version that {section}.storage_uri could name: {uri}",
            "Train one: `mlapp train`, or name a version in the store: --model 4.",
        )
    return uri.replace("{version}", shipment.model_version or "").replace("{app}", shipment.app)
