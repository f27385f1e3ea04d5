"""Records the starts and the ends of alarms, once for all processes."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence

import msgspec

from mlapp.config import Alert
from mlapp.errors import StoreError
from mlapp.monitoring.alerts import AlarmEvent
from mlapp.monitoring.deliveries import Deliveries, StoredEvent
from mlapp.monitoring.place import Place
from mlapp.monitoring.windows import Alarm
from mlapp.store.numbered_names import format_number_name

log = logging.getLogger("mlapp.monitoring")


class Ledger:
    """The starts and ends of alarms. Of several processes that record the same one, the first creates its entry.

    Args:
        alerts: receivers of the events.
    """

    def __init__(self, place: Place, alerts: Sequence[Alert]) -> None:
        self._place = place
        self._deliveries = Deliveries(place, alerts)

    def begin_alarm(self, version: str, alarm: Alarm, event: AlarmEvent) -> bool:
        """Record that an alarm has started; False if it is already recorded."""
        return self._add_event(version, alarm.kind, alarm.column, event, is_begin=True)

    def end_alarm(self, version: str, kind: str, column: str, event: AlarmEvent) -> bool:
        """Record that an alarm has ended; False if it is already recorded."""
        return self._add_event(version, kind, column, event, is_begin=False)

    def list_active_alarms(self) -> list[AlarmEvent]:
        """The start events of alarms that have not ended. A damaged entry is logged and left out."""
        events = []
        for name in self._place.names("alarms"):
            entries = self._place.names("alarms", name)
            if len(entries) % 2:
                try:
                    entry = self._place.read_document(self._place.key("alarms", name, entries[-1]), StoredEvent)
                except StoreError as error:
                    log.warning("An alarm is ignored: %s %s", error.what, error.todo)
                    continue
                if entry is not None:
                    events.append(entry.to_event())
        return events

    def _add_event(self, version: str, kind: str, column: str, event: AlarmEvent, *, is_begin: bool) -> bool:
        name = hashlib.sha256(f"{version}\0{kind}\0{column}".encode()).hexdigest()[:24]
        number = len(self._place.names("alarms", name)) + 1
        if (number % 2 == 1) is not is_begin:
            return False
        noted = time.time_ns()
        content = msgspec.json.encode({**event, "noted": noted})
        # Deliveries are created first, and count only with this entry: a run that is killed in between loses no alarm.
        keys = self._deliveries.add_deliveries(name, number, noted, content)
        if self._place.storage.create_key(self._place.key("alarms", name, format_number_name(number)), content):
            return True
        for key in keys:
            self._place.storage.delete_prefix(key)
        return False
