"""The check that every target makes of its minimum and maximum number of replicas."""

from __future__ import annotations

from mlapp.errors import ConfigError


def refuse_reversed_replica_range(section: str, least: int, most: int | None) -> None:
    """Check `min_replicas` against `max_replicas`, which may be absent.

    Raises:
        ConfigError: the minimum is more than the maximum.
    """
    if most is not None and most < least:
        raise ConfigError(
            f"{section}: min_replicas {least} is more than max_replicas {most}.",
            "Make max_replicas at least min_replicas.",
        )
