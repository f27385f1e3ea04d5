"""The default resources of tasks. Flyte's own default, 200m CPU, makes a task five times slower."""

from __future__ import annotations

import dataclasses

from mlapp.pipeline.stage_tasks import Resources

CPU = 1
GIB = 1024**3
CELL = 8 * 8
"""Bytes of memory per cell of the data: eight for a number, and copies for reading, splitting and training."""


def choose_default_resources(declared: Resources | None, size: int | None) -> Resources:
    """The declared resources, or by default 1 CPU and memory by the size of the data.

    Args:
        size: rows × columns of the latest version's data; None, for 1 GiB, if there is no version.
    """
    declared = declared or Resources()
    return dataclasses.replace(
        declared, cpu=declared.cpu or CPU, memory=declared.memory or f"{_estimate_default_memory(size or 0)}Gi"
    )


def _estimate_default_memory(size: int) -> int:
    needed = 1
    while needed * GIB < size * CELL:
        needed *= 2
    return needed
