"""The trainings that a fall of quality has started, stored so that only one process runs each.

<app>/monitor/retrain/<number>.json            an attempt to train; a process claims it by creating it
<app>/monitor/retrain/<number>.signs/<n>.json  the process still works on it; only the newest sign is kept
<app>/monitor/retrain/<number>.end.json        its result: the number of a version, or the reason of the failure
<app>/monitor/retrain/<number>.decided.json    the version has its alias, and is promoted or not

An attempt without a result and without a recent sign counts as that of a killed process.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

import msgspec

from mlapp.errors import MlappError
from mlapp.monitoring.place import DAY, HOUR, WEEK, Place
from mlapp.plain_numbers import parse_plain_integer
from mlapp.store.numbered_names import format_key_number, format_number_name, parse_number_names

log = logging.getLogger("mlapp.monitoring")
PERIODS = {"hour": HOUR, "day": DAY, "week": WEEK}
SIGN = 60.0
"""Seconds between two signs of a process that trains."""
ABANDONED = 900.0
"""Seconds after its last sign until an attempt counts as abandoned, even if clocks differ by minutes; and seconds
before a failed training is tried again."""
ATTEMPTS = 3
"""Attempts of one training. Together they count once in `at_most`."""


class Attempt(msgspec.Struct, frozen=True):
    """An attempt to train.

    Attributes:
        number: in the order of all attempts.
        at: its start, in seconds since 1970.
        first_at: start of the training's first attempt.
        attempt: 1 for the first one.
        run: a name for all attempts of the training; the version has it in its origin, and a run on Flyte is named so.
        replaces: the version whose quality fell.
    """

    number: int
    at: float
    first_at: float
    attempt: int
    run: str
    replaces: str


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of an attempt: a version, or the reason of the failure."""

    at: float
    version: int | None = None
    failure: str | None = None


class Trainings:
    """The trainings of one app.

    Raises:
        StoreError: raised by every method if the place cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    def find_last(self) -> Attempt | None:
        """The last attempt, or None."""
        attempts = self._list_attempts(1)
        return attempts[-1] if attempts else None

    def read_result(self, attempt: Attempt) -> Result | None:
        """The result of an attempt; None if it has none yet."""
        return self._place.read_document(self._key(attempt, "end.json"), Result)

    def is_decided(self, attempt: Attempt) -> bool:
        """Whether the attempt's version has its alias and is promoted or not."""
        return self._place.storage.read_key(self._key(attempt, "decided.json")) is not None

    def is_worked_on(self, attempt: Attempt, now: float) -> bool:
        """Whether a process may still work on an attempt that has no result, or whose version is undecided."""
        signs = self._place.names("retrain", f"{format_key_number(attempt.number)}.signs")
        times = [parse_plain_integer(name.removesuffix(".json")) for name in signs]
        return any(abs(now - at) < ABANDONED for at in (attempt.at, *(at / 1000 for at in times if at is not None)))

    def find_due_attempt(self, at_most: str, version: str, now: float) -> Attempt | None:
        """The attempt that can begin now: the next one of a training without a version, or the first of a new one.

        A training counts in `at_most` from its first attempt. A training that began far in the future had a wrong
        clock, and does not count.

        Args:
            at_most: such as `1/day`.
            version: the version with the fallen quality.
        """
        limit, _, unit = at_most.partition("/")
        attempts = self._list_attempts(ATTEMPTS * int(limit) + 1)
        last = attempts[-1] if attempts else None
        if last is not None:
            result = self.read_result(last)
            if self._is_busy(last, result, now):
                return None
            is_lost = result is None or result.version is None
            if is_lost and last.attempt < ATTEMPTS and last.replaces == version:
                return msgspec.structs.replace(last, number=last.number + 1, at=now, attempt=last.attempt + 1)
        runs = {attempt.run for attempt in attempts if abs(now - attempt.first_at) < PERIODS[unit]}
        if len(runs) >= int(limit):
            return None
        number = 1 if last is None else last.number + 1
        return Attempt(number, now, now, 1, f"r{uuid.uuid4().hex[:19]}", version)

    def claim_attempt(self, attempt: Attempt) -> bool:
        """Reserve an attempt for this process; False if another process has it."""
        return self._place.storage.create_key(
            self._place.key("retrain", format_number_name(attempt.number)), msgspec.json.encode(attempt)
        )

    def is_superseded(self, attempt: Attempt) -> bool:
        """Whether another process has taken over, because this one seemed dead."""
        last = self.find_last()
        return last is not None and last.number > attempt.number

    @contextmanager
    def give_signs(self, attempt: Attempt) -> Iterator[None]:
        """Show other processes that this one works on an attempt, while the block runs."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._write_signs, args=(attempt, is_over), name="retrain", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join(SIGN)

    def record_result(self, attempt: Attempt, result: Result) -> None:
        """Record the result of an attempt."""
        self._place.storage.create_key(self._key(attempt, "end.json"), msgspec.json.encode(result))

    def record_decision(self, attempt: Attempt) -> None:
        """Record that the attempt's version has its alias and is promoted or not."""
        self._place.storage.create_key(self._key(attempt, "decided.json"), b"{}")

    def describe_failure(self) -> str | None:
        """The reason why the last training failed; None if it has not."""
        last = self.find_last()
        result = None if last is None else self.read_result(last)
        if last is None or result is None or result.failure is None:
            return None
        at = datetime.fromtimestamp(last.at, timezone.utc)
        return f"The training that began at {at:%Y-%m-%d %H:%M:%S} UTC failed: {result.failure}"

    def _is_busy(self, attempt: Attempt, result: Result | None, now: float) -> bool:
        """Whether a process works on an attempt, or it has failed recently."""
        if result is not None and result.version is None:
            return abs(now - result.at) < ABANDONED
        return not self.is_decided(attempt) and self.is_worked_on(attempt, now)

    def _write_signs(self, attempt: Attempt, is_over: threading.Event) -> None:
        before: str | None = None
        while True:
            key = self._key(attempt, f"signs/{int(time.time() * 1000)}.json")
            try:
                self._place.storage.create_key(key, b"{}")
                if before is not None:
                    self._place.storage.delete_prefix(before)
                before = key
            except MlappError as error:  # the next sign can succeed
                log.warning("The sign of a training was not written: %s", error.what)
            if is_over.wait(SIGN):
                return

    def _list_attempts(self, count: int) -> Sequence[Attempt]:
        """The last attempts, in order."""
        numbers = sorted(parse_number_names(self._place.names("retrain")))[-count:]
        keys = [self._place.key("retrain", format_number_name(number)) for number in numbers]
        attempts = [self._place.read_document(key, Attempt) for key in keys]
        return [attempt for attempt in attempts if attempt is not None]

    def _key(self, attempt: Attempt, file: str) -> str:
        return self._place.key("retrain", f"{format_key_number(attempt.number)}.{file}")
