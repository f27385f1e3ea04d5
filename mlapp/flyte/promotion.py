"""Stores the model of a scheduled run, and promotes it only if it is better than the one in production."""

from __future__ import annotations

from pathlib import Path

from mlapp.config import Store as StoreSettings
from mlapp.errors import UsageError, suggest_nearest
from mlapp.store import Manifest, ModelVersion, Store, open_store

INPUT_NAME = "promote_if"
"""The workflow's input: a metric, with the prefix `-` if lower is better; empty to promote nothing."""
ALIAS = "production"


def can_promote_in_store(url: str) -> bool:
    """Whether a task in a cluster can reach the store: it must be an object store, not a folder."""
    return "://" in url and not url.startswith("file://")


def save_if_store_is_shared(settings: StoreSettings, root: Path, version: ModelVersion, metric: str) -> None:
    """Save a version in the store from within the cluster, if the store is reachable from there."""
    if can_promote_in_store(settings.url):
        save_and_promote(open_store(settings, root), version, metric)


def save_and_promote(store: Store, version: ModelVersion, metric: str = "") -> ModelVersion:
    """Save a version, once per execution that created it, and promote it if it is better.

    Raises:
        UsageError: the model has no such metric. StoreError: the store is not writable.
    """
    execution = version.manifest.origin.get("execution")
    existing = next(
        (old for old in store.versions(version.app) if execution and old.origin.get("execution") == execution), None
    )
    if existing is not None:
        return store.get(version.app, existing.version)
    stored = store.import_version(version)
    if metric and should_promote(store, stored.manifest, metric):
        store.promote(stored.app, stored.version, ALIAS)
    return stored


def should_promote(store: Store, manifest: Manifest, metric: str) -> bool:
    """Whether a model's metric is better than that of the model in production; True if there is none.

    Args:
        metric: name of a metric of the last split, such as `accuracy`; `-rmse` if lower is better.

    Raises:
        UsageError: the model has no such metric.
    """
    name = metric.removeprefix("-")
    value = manifest.headline.get(name)
    if value is None:
        raise UsageError(
            f"promote_if: the model has no metric '{name}'.{suggest_nearest(name, manifest.headline)}",
            f"It has: {', '.join(manifest.headline) or 'none'}. Change promote_if of the schedule.",
        )
    number = store.aliases(manifest.app).get(ALIAS)
    if number is None:
        return True
    old = store.manifest(manifest.app, number).headline.get(name)
    return old is None or (value < old if metric.startswith("-") else value > old)
