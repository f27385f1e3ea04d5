"""The events of alarms that webhooks have not received yet, stored so that only one process sends each.

<app>/monitor/deliveries/<delivery>/event.json        the event; removed once the receiver has answered
<app>/monitor/deliveries/<delivery>/<attempt>.json    an attempt to send it; a process claims it by creating it
<app>/monitor/deliveries/<delivery>/<attempt>.failed  its failure, after which any process may make the next attempt
<app>/monitor/deliveries/waits/<receiver>-<time>.json a receiver wants no message before that time

A delivery is `<alarm>-<number>-<noted>-<receiver>`. It is sent if the ledger's entry `alarms/<alarm>/<number>.json` has
the same `noted`: of two processes that record the same event, one creates the entry.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from mlapp.config import Alert
from mlapp.errors import StoreError
from mlapp.monitoring.alerts import LONGEST_WAIT, AlarmEvent, describe_receiver, send_alarm
from mlapp.monitoring.place import WEEK, Place
from mlapp.plain_numbers import parse_plain_integer
from mlapp.store.numbered_names import format_key_number, format_number_name

log = logging.getLogger("mlapp.monitoring")
KEPT = WEEK
"""Seconds for which a delivery is attempted."""
MOST = 1000
"""Maximum number of stored deliveries. The oldest ones are removed."""
ABANDONED = 900
"""Seconds after which an attempt without a result counts as that of a killed process. It is longer than an attempt
takes, even for a process with a clock that is minutes ahead."""


class StoredEvent(msgspec.Struct):
    """An event of an alarm, as stored. `noted` makes two equal events different."""

    app: str
    version: str
    kind: str
    column: str
    value: float
    threshold: float
    text: str
    status: str
    since: str
    until: str
    noted: int = 0

    def to_event(self) -> AlarmEvent:
        """The event as it is sent."""
        return AlarmEvent({name: value for name, value in msgspec.structs.asdict(self).items() if name != "noted"})


class Attempt(msgspec.Struct):
    """The start of an attempt, in nanoseconds since 1970."""

    at: int = 0


class Delivery(NamedTuple):
    """One event for one receiver, from its name."""

    alarm: str
    number: int
    noted: int
    receiver: str

    @property
    def name(self) -> str:
        return f"{self.alarm}-{format_key_number(self.number)}-{self.noted}-{self.receiver}"

    @classmethod
    def parse(cls, name: str) -> Delivery | None:
        """The delivery from its name; None if mlapp has not written it."""
        match = re.fullmatch(r"([0-9a-f]{24})-(\d{6,9})-(\d{1,20})-([0-9a-f]{16})", name, re.ASCII)
        return cls(match[1], int(match[2]), int(match[3]), match[4]) if match else None


class Deliveries:
    """The deliveries of one app.

    Args:
        alerts: the receivers of `monitor.alerts`.
    """

    def __init__(self, place: Place, alerts: Sequence[Alert]) -> None:
        self._place = place
        self._receivers = {_name_receiver(alert): alert for alert in alerts}
        self._failed: set[str] = set()

    def add_deliveries(self, alarm: str, number: int, noted: int, content: bytes) -> list[str]:
        """Record an event for each receiver. Returns the keys of the deliveries."""
        names = [Delivery(alarm, number, noted, receiver).name for receiver in self._receivers]
        for name in names:
            self._place.storage.create_key(self._key(name, "event.json"), content)
        return [self._place.key("deliveries", name) for name in names]

    def count_pending(self) -> dict[str, int]:
        """The number of pending events by receiver, of the receivers in `monitor.alerts`."""
        alerts = (self._receivers.get(delivery.receiver) for delivery in self._list_deliveries())
        return dict(Counter(describe_receiver(alert) for alert in alerts if alert is not None))

    def send_due_deliveries(self) -> None:
        """Send the due events, those of each alarm in order. After a failure, a receiver gets no further event."""
        now = time.time_ns()
        blocked: set[tuple[str, str]] = set()
        self._failed |= self._list_waiting(now)
        for delivery in self._remove_expired(self._list_deliveries(), now):
            alert = self._receivers.get(delivery.receiver)
            if alert is None or delivery.receiver in self._failed or (delivery.alarm, delivery.receiver) in blocked:
                continue
            event = self._read_event(delivery, now)
            if event is not None and (attempt := self._claim(delivery, now)) is not None:
                wait = send_alarm(event, alert, is_retried=attempt == 1)
                if wait is None:
                    self._remove(delivery)
                else:
                    self._record_failure(delivery, attempt, wait)
                    self._failed.add(delivery.receiver)
            else:
                blocked.add((delivery.alarm, delivery.receiver))  # the alarm's end must not arrive before its start

    def _list_deliveries(self) -> list[Delivery]:
        """The deliveries, each alarm's in order."""
        deliveries = [Delivery.parse(name) for name in self._place.names("deliveries")]
        return sorted(delivery for delivery in deliveries if delivery is not None)

    def _remove_expired(self, deliveries: list[Delivery], now: int) -> list[Delivery]:
        newest = sorted(deliveries, key=lambda delivery: delivery.noted)[-MOST:]
        current = {delivery for delivery in newest if now - delivery.noted < KEPT * 10**9}
        expired = [delivery for delivery in deliveries if delivery not in current]
        if expired:
            log.error("%d messages about alarms could not be delivered and were deleted.", len(expired))
        for delivery in expired:
            self._remove(delivery)
        return [delivery for delivery in deliveries if delivery in current]

    def _read_event(self, delivery: Delivery, now: int) -> AlarmEvent | None:
        """The event if the ledger has it. Removes the delivery if another process has recorded the event."""
        try:
            recorded = self._place.read_document(
                self._place.key("alarms", delivery.alarm, format_number_name(delivery.number)), StoredEvent
            )
        except StoreError as error:
            log.warning("An alarm cannot be sent: %s %s", error.what, error.todo)
            return None
        if recorded is not None and recorded.noted == delivery.noted:
            return recorded.to_event()
        if recorded is not None or now - delivery.noted > ABANDONED * 10**9:
            self._remove(delivery)
        return None

    def _claim(self, delivery: Delivery, now: int) -> int | None:
        """Claim the next attempt for this process; None if another process is sending or has sent the event."""
        attempts, failures = self._list_attempts(delivery)
        last = max(attempts, default=0)
        if last and last not in failures:
            try:
                start = self._place.read_document(self._key(delivery.name, format_number_name(last)), Attempt)
            except StoreError:  # damaged
                start = Attempt()
            if start is None or now - start.at < ABANDONED * 10**9:
                return None
        attempt = last + 1
        key = self._key(delivery.name, format_number_name(attempt))
        if not self._place.storage.create_key(key, msgspec.json.encode(Attempt(time.time_ns()))):
            return None
        # Meanwhile another process may have sent it, or made further attempts and removed this one.
        names = self._place.names("deliveries", delivery.name)
        if "event.json" not in names:
            self._remove(delivery)
            return None
        if max(self._list_attempts(delivery)[0], default=attempt) > attempt:
            self._place.storage.delete_prefix(key)
            return None
        return attempt

    def _list_attempts(self, delivery: Delivery) -> tuple[set[int], set[int]]:
        """The numbers of all attempts, and of the failed ones."""
        names = self._place.names("deliveries", delivery.name)
        stems = (name.partition(".") for name in names)
        parts = [(number, suffix) for stem, _, suffix in stems if (number := parse_plain_integer(stem)) is not None]
        return {number for number, _ in parts}, {number for number, suffix in parts if suffix == "failed"}

    def _list_waiting(self, now: int) -> set[str]:
        """The receivers that have asked to wait."""
        receivers = set()
        for name in self._place.names("deliveries", "waits"):
            receiver, _, until = name.removesuffix(".json").rpartition("-")
            if 0 < (parse_plain_integer(until) or 0) - now <= LONGEST_WAIT * 10**9:
                receivers.add(receiver)
            else:  # the wait is over, or a wrong clock made it too long
                self._place.storage.delete_prefix(self._key("waits", name))
        return receivers

    def _record_failure(self, delivery: Delivery, attempt: int, wait: float) -> None:
        self._place.storage.create_key(self._key(delivery.name, f"{format_key_number(attempt)}.failed"), b"{}")
        if wait:
            until = time.time_ns() + int(wait * 10**9)
            self._place.storage.create_key(self._key("waits", f"{delivery.receiver}-{until}.json"), b"{}")
        for suffix in ("json", "failed"):
            self._place.storage.delete_prefix(self._key(delivery.name, f"{format_key_number(attempt - 1)}.{suffix}"))

    def _remove(self, delivery: Delivery) -> None:
        self._place.storage.delete_prefix(self._key(delivery.name, "event.json"))  # first: it ends the delivery
        self._place.storage.delete_prefix(self._place.key("deliveries", delivery.name))

    def _key(self, name: str, file: str) -> str:
        return self._place.key("deliveries", name, file)


def describe_pending_deliveries(receiver: str, count: int) -> str:
    """A sentence about the pending messages, and when they are sent."""
    messages = "1 message" if count == 1 else f"{count} messages"
    return f"{messages} about alarms could not be delivered to {receiver}. The next `mlapp monitor run` tries again."


def _name_receiver(alert: Alert) -> str:
    """A name for the receiver that contains no part of its address, which can be a secret."""
    return hashlib.sha256(f"{alert.format}\0{alert.webhook}".encode()).hexdigest()[:16]
