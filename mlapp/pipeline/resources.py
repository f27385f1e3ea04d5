"""What a stage needs to run somewhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What one task gets on a cluster. `cpu` in cores, `memory` and `disk` as Kubernetes quantities (`8Gi`)."""

    cpu: float | str | None = None
    memory: str | None = None
    gpu: int | None = None
    disk: str | None = None


@dataclass(frozen=True)
class Task:
    """How a stage runs as a task of its own. A run in this process needs none of it."""

    resources: Resources | None = None
    cache: bool = False
    retries: int = 0
    timeout: float | None = None
    secrets: tuple[str, ...] = ()
