"""Reject contradictory settings of `targets.kserve` before anything is built or written."""

from __future__ import annotations

from mlapp.deploy.cluster.settings import ServerRollout, refuse_reversed_replica_range
from mlapp.deploy.kserve.settings import IMAGE, KServeSettings
from mlapp.errors import ConfigError

SCHEMES = (
    "s3://",
    "gs://",
    "pvc://",
    "oci://",
    "oci+native://",
    "https://",
    "http://",
    "hf://",
    "hdfs://",
    "webhdfs://",
)


def is_readable_by_kserve(uri: str | None) -> bool:
    """Whether KServe can download from `uri`."""
    return uri is not None and uri.startswith(SCHEMES)


def refuse_contradictory_kserve_settings(settings: KServeSettings) -> None:
    """Check the settings against each other.

    Raises:
        ConfigError: two settings contradict each other, or one has no effect; the message names them.
    """
    knative = settings.mode == "knative"
    refuse_reversed_replica_range("targets.kserve", settings.min_replicas, settings.max_replicas)
    if settings.min_replicas == 0 and not knative:
        raise ConfigError(
            "targets.kserve: min_replicas is 0, and in Standard mode nothing starts a pod for a request.",
            "Use `mode: knative`, or set min_replicas to at least 1.",
        )
    if settings.autoscaler == "knative" and not knative:
        raise ConfigError(
            "targets.kserve: `autoscaler: knative` needs `mode: knative`.",
            "Set `mode: knative`, or set autoscaler to hpa, keda or none.",
        )
    if settings.autoscaler in ("keda", "external") and knative:
        raise ConfigError(
            f"targets.kserve: `autoscaler: {settings.autoscaler}` works in Standard mode only.",
            "Use `mode: standard`, or set autoscaler to hpa or knative.",
        )
    if settings.min_replicas == 0 and settings.scaler in ("hpa", "none"):
        raise ConfigError(
            f"targets.kserve: `autoscaler: {settings.scaler}` starts no pod for a request, and min_replicas is 0.",
            "Use `autoscaler: knative`, or set min_replicas to at least 1.",
        )
    if knative and settings.rollout.leave != ServerRollout().leave:
        raise ConfigError(
            "targets.kserve.rollout.leave has no effect in Knative mode: Knative itself keeps a stopping pod until its "
            "requests end.",
            "Remove it from mlapp.yaml, or use `mode: standard`.",
        )
    uri = settings.storage_uri
    if uri not in (None, IMAGE) and not is_readable_by_kserve(uri):
        raise ConfigError(
            f"targets.kserve.storage_uri: KServe does not read {uri}.",
            "Use s3://, gs://, pvc://, oci://, https:// or hf://, or `image` for the image's own model.",
        )
