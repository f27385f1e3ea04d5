"""The section `canary:` that all targets with canaries share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlapp.config.section import Section


class CanaryLimits(Section, frozen=True):
    """`canary:` conditions for `--auto-promote`."""

    requests: Annotated[int, Meta(ge=1, description="Minimum number of answered requests.")] = 20
    error_rate: Annotated[float, Meta(ge=0, le=1, description="Maximum error rate above the live release's.")] = 0.01
    latency_ratio: Annotated[
        float, Meta(gt=0, description="Maximum mean latency, as a multiple of the live release's.")
    ] = 1.5
