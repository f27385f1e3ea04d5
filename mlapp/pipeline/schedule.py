"""Scheduled training and batch prediction, as an app declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from mlapp.errors import DeclarationError
from mlapp.pipeline.option_checks import check_option, is_whole_number
from mlapp.plain_numbers import parse_plain_integer

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,48}[a-z0-9])?")
ALIASES = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
FIELDS: Mapping[str, tuple[int, int, tuple[str, ...]]] = {
    "minute": (0, 59, ()),
    "hour": (0, 23, ()),
    "day": (1, 31, ()),
    "month": (1, 12, MONTHS),
    "weekday": (0, 6, DAYS),
}
"""Fields of a cron expression, in order: minimum, maximum, and the names of the numbers from the minimum."""
TERM = re.compile(r"(\*|\?|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>\d+))?")


@dataclass(frozen=True)
class Schedule:
    """A schedule for training an app, or for predicting its reader's data.

    Args:
        name: its name on the cluster: lower-case letters, digits, '-' and '_'.
        cron: five fields, in UTC, or an alias such as `@daily`; or `every`, a fixed rate in whole minutes.
        parameters: values of the pipeline's parameters; the defaults for the rest.
        time: the `datetime` parameter that receives the scheduled time of a run.
        promote_if: promote the new model if this metric is better than that of the model in production. Prefix the
            metric with `-` if lower is better.
        predict: predict the data of the data_reader instead of training.
        model: the version, alias or `latest` that predicts; resolved when a run starts.

    Raises:
        DeclarationError: not exactly one of cron and every, or an invalid one.
    """

    name: str
    cron: str | None = None
    every: timedelta | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    time: str | None = None
    promote_if: str | None = None
    predict: bool = False
    model: str | int = "latest"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise DeclarationError(
                f"A schedule cannot be called {self.name!r}.",
                "Use lower-case letters, digits, '-' and '_', at most 50, beginning and ending with a letter or digit.",
            )
        if (self.cron is None) == (self.every is None):
            raise DeclarationError(
                f"Schedule '{self.name}' has {'neither' if self.cron is None else 'both'} cron and every.",
                "Give one: cron='0 3 * * *' or every=timedelta(hours=6).",
            )
        if self.every is not None and not isinstance(self.every, timedelta):
            raise DeclarationError(
                f"Schedule '{self.name}': every={self.every!r} is not a timedelta.",
                "Give every=timedelta(hours=6), or a cron expression: cron='0 3 * * *'.",
            )
        if self.cron is not None and not isinstance(self.cron, str):
            raise DeclarationError(
                f"Schedule '{self.name}': cron={self.cron!r} is not a string.", "Give it as cron='0 3 * * *'."
            )
        if self.cron is not None and self.cron not in ALIASES:
            wrong = _find_cron_error(self.cron)
            if wrong is not None:
                raise DeclarationError(
                    f"Schedule '{self.name}': '{self.cron}' is not a cron expression: {wrong}.",
                    "Write minute, hour, day, month and weekday, such as '0 3 * * *' for each night at three.",
                )
        if self.every is not None and (self.every < timedelta(minutes=1) or self.every % timedelta(minutes=1)):
            raise DeclarationError(
                f"Schedule '{self.name}': every {self.every} is not in whole minutes.", "Give timedelta(minutes=…)."
            )
        where = f"Schedule '{self.name}': "
        is_mapping = isinstance(self.parameters, Mapping) and all(isinstance(name, str) for name in self.parameters)
        check_option(is_mapping, f"{where}parameters=…", self.parameters, "a dict of parameters by name")
        is_name = self.time is None or isinstance(self.time, str)
        check_option(is_name, f"{where}time=…", self.time, "the name of the parameter that takes the time")
        check_option(isinstance(self.predict, bool), f"{where}predict=…", self.predict, "True or False")
        is_model = isinstance(self.model, str) or is_whole_number(self.model, 1)
        check_option(is_model, f"{where}model=…", self.model, "a version or an alias")
        if self.time is not None and self.time in self.parameters:
            raise DeclarationError(
                f"Schedule '{self.name}' sets '{self.time}' to both a value and the scheduled time.",
                "Give it one of them.",
            )
        if self.predict and self.promote_if is not None:
            raise DeclarationError(
                f"Schedule '{self.name}' predicts, and has promote_if.", "Use promote_if only for schedules that train."
            )

    @property
    def workflow(self) -> str:
        """The workflow that it runs: `train` or `predict`."""
        return "predict" if self.predict else "train"

    @property
    def description(self) -> str:
        """The cron expression, or the rate."""
        return self.cron or f"every {self.every}"


def _find_cron_error(cron: str) -> str | None:
    """The error in a cron expression of five fields, as standard cron reads it; None if it is valid."""
    fields = cron.split()
    if len(fields) != len(FIELDS):
        return f"it has {len(fields)} fields, not {len(FIELDS)}"
    for (name, (minimum, maximum, names)), text in zip(FIELDS.items(), fields, strict=True):
        for term in text.split(","):
            match = TERM.fullmatch(term)
            ends = (
                [_parse_cron_number(end, minimum, names) for end in match.group("first", "last") if end]
                if match
                else [-1]
            )
            is_valid = match is not None and int(match["step"] or 1) > 0
            if not is_valid or ends != sorted(ends) or any(not minimum <= end <= maximum for end in ends):
                return f"{term!r} is not a valid {name}"
    return None


def _parse_cron_number(text: str, minimum: int, names: tuple[str, ...]) -> int:
    if (number := parse_plain_integer(text)) is not None:
        return number
    return names.index(text.upper()) + minimum if text.upper() in names else -1
