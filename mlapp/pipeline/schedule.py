"""Training on a clock, as an app declares it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mlapp.errors import DeclarationError

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
ALIASES = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
FIELD = re.compile(r"[\d*/,\-?A-Za-z#]+")


@dataclass(frozen=True)
class Schedule:
    """When an app is trained, and with what.

    Args:
        name: names it on the cluster: lower-case letters, digits and '-'.
        cron: five fields, in UTC, or `@daily` and the like; or `every`, a fixed rate in whole minutes.
        parameters: values of the pipeline's parameters; the defaults for the rest.
        time: the parameter, a `datetime`, that gets the time for which a run was scheduled.
        promote_if: promote the new model if this metric is better than that of the model in production; `-` before
            it where lower is better.

    Raises:
        DeclarationError: not one of cron and every, or one that cannot be read.
    """

    name: str
    cron: str | None = None
    every: timedelta | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    time: str | None = None
    promote_if: str | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise DeclarationError(
                f"A schedule cannot be called {self.name!r}.", "Use lower-case letters, digits and '-', at most 50."
            )
        if (self.cron is None) == (self.every is None):
            raise DeclarationError(
                f"Schedule '{self.name}' has {'neither' if self.cron is None else 'both'} cron and every.",
                "Give one: cron='0 3 * * *' or every=timedelta(hours=6).",
            )
        if self.cron is not None and self.cron not in ALIASES:
            fields = self.cron.split()
            if len(fields) != 5 or not all(FIELD.fullmatch(text) for text in fields):
                raise DeclarationError(
                    f"Schedule '{self.name}': '{self.cron}' is not a cron expression.",
                    "Write minute, hour, day, month and weekday, as '0 3 * * *' for each night at three.",
                )
        if self.every is not None and (self.every < timedelta(minutes=1) or self.every % timedelta(minutes=1)):
            raise DeclarationError(
                f"Schedule '{self.name}': every {self.every} is not in whole minutes.", "Give timedelta(minutes=…)."
            )
        if self.time is not None and self.time in self.parameters:
            raise DeclarationError(
                f"Schedule '{self.name}' gives '{self.time}' a value and the scheduled time.", "Give it one of them."
            )

    @property
    def when(self) -> str:
        """In words: the cron expression, or the rate."""
        return self.cron or f"every {self.every}"
