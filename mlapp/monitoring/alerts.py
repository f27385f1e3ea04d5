"""Sends the start and the end of an alarm to webhooks and to the app's function, once for all processes."""

from __future__ import annotations

import hashlib
import html
import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import msgspec

from mlapp.config import Alert
from mlapp.data.secrets import expand_secrets_in_address
from mlapp.errors import DataError
from mlapp.monitoring.place import Place
from mlapp.monitoring.windows import Alarm, WindowReport

log = logging.getLogger("mlapp.monitoring")
PATIENCE = 10.0
"""Seconds that a webhook may take."""
PAUSES = (1.0, 5.0)
"""Seconds before each further attempt."""
SHORT = 2.0
"""Seconds that a webhook may take which failed for another alarm of the same run. It gets no further attempt."""
FAR = timedelta(days=365)
"""Time for which Alertmanager keeps an alarm active without an update. The end of an alarm is always sent."""


class AlarmEvent(dict[str, Any]):
    """The alarm that is sent: a dict whose entries are also attributes.

    `app`, `version`, `kind`, `column`, `value`, `threshold`, `text`; `status` is `firing` or `resolved`; `since` and
    `until` are those of the window, as ISO 8601 texts.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class StoredEvent(msgspec.Struct):
    """An entry of the ledger. `noted` makes the entries of two equal events different."""

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


def make_alarm_event(app: str, report: WindowReport, alarm: Alarm, status: Literal["firing", "resolved"]) -> AlarmEvent:
    """The event of the start or the end of an alarm in a window."""
    return AlarmEvent(
        app=app,
        version=report.version,
        **msgspec.structs.asdict(alarm),
        status=status,
        since=report.since.isoformat(),
        until=report.until.isoformat(),
    )


class Ledger:
    """The sent starts and ends of alarms. The first process that sends one creates its entry."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def begin(self, version: str, alarm: Alarm, event: AlarmEvent) -> bool:
        """Record that an alarm has started; False if it is already recorded."""
        return self._add_event(version, alarm.kind, alarm.column, event, is_begin=True)

    def end(self, version: str, kind: str, column: str, event: AlarmEvent) -> bool:
        """Record that an alarm has ended; False if it is already recorded."""
        return self._add_event(version, kind, column, event, is_begin=False)

    def active(self) -> list[AlarmEvent]:
        """The start events of alarms that have not ended."""
        found = []
        for name in self._place.names("alarms"):
            entries = self._place.names("alarms", name)
            if len(entries) % 2:
                stored = self._place.read_document(self._place.key("alarms", name, entries[-1]), StoredEvent)
                if stored is not None:
                    found.append(AlarmEvent(msgspec.structs.asdict(stored)))
        return found

    def _add_event(self, version: str, kind: str, column: str, event: AlarmEvent, *, is_begin: bool) -> bool:
        name = hashlib.sha256(f"{version}\0{kind}\0{column}".encode()).hexdigest()[:24]
        count = len(self._place.names("alarms", name))
        if (count % 2 == 0) is not is_begin:
            return False
        return self._place.storage.create_key(
            self._place.key("alarms", name, f"{count + 1:06}.json"),
            msgspec.json.encode({**event, "noted": time.time_ns()}),
        )


def send_alarms(
    event: AlarmEvent, alerts: list[Alert], on_alarm: Callable[[AlarmEvent], Any] | None, failed: set[str] | None = None
) -> None:
    """Send to all receivers. A failure is logged, and the other receivers still get the alarm.

    Args:
        failed: the URLs that could not be reached for earlier alarms of the same run; this one's are added.
    """
    for alert in alerts:
        try:
            url = expand_secrets_in_address(alert.webhook)
        except DataError as error:
            log.error("An alarm was not sent: %s", error.what)
            continue
        failed = set() if failed is None else failed
        body = msgspec.json.encode(make_alert_body(event, alert.format))
        if not _post_alarm(url.value, url.shown, body, alert.format, is_retried=url.value not in failed):
            failed.add(url.value)
    if on_alarm is not None:
        try:
            on_alarm(event)
        except Exception:
            log.exception("on_alarm raised")


def make_alert_body(event: AlarmEvent, format: str) -> Any:
    """The body for a receiver of that format.

    Slack: https://api.slack.com/messaging/webhooks. Alertmanager: `POST /api/v2/alerts`, its openapi.yaml.
    """
    if format == "slack":
        mark = ":rotating_light:" if event["status"] == "firing" else ":white_check_mark:"
        title = f"{mark} *{event['app']}* version {event['version']}, {event['kind']} {event['status']}"
        # A client's value can be a link or a mention: https://api.slack.com/reference/surfaces/formatting.
        return {"text": f"{title}\n{html.escape(event['text'], quote=False)}"}
    if format == "alertmanager":
        now = datetime.now(timezone.utc)
        is_firing = event["status"] == "firing"
        return [
            {
                "labels": {
                    "alertname": f"Mlapp{event['kind'].title().replace('_', '')}",
                    "app": event["app"],
                    "version": event["version"],
                    "kind": event["kind"],
                    "column": event["column"],
                    "severity": "warning",
                },
                "annotations": {"summary": event["text"]},
                "startsAt": event["since"],
                "endsAt": (now + FAR if is_firing else now).isoformat(),
            }
        ]
    return event


def _post_alarm(url: str, shown: str, body: bytes, format: str, *, is_retried: bool) -> bool:
    """Send to one webhook; False if it could not be reached."""
    if not url.startswith(("http://", "https://")):
        log.error("An alarm was not sent: %s is not an http or https URL.", shown)
        return True
    if format == "alertmanager" and "/api/" not in url:
        url = url.rstrip("/") + "/api/v2/alerts"
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310
    except ValueError:
        log.error("An alarm was not sent: %s is not an http or https URL.", shown)
        return True
    for pause in (*PAUSES, None) if is_retried else (None,):
        try:
            _open_alert_request(request, PATIENCE if is_retried else SHORT)
            return True
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code != 429) or pause is None:
                log.error("An alarm was not sent: %s answers %d.", shown, error.code)
                return True
        except OSError as error:
            if pause is None:
                log.error("An alarm was not sent: %s cannot be reached: %s.", shown, getattr(error, "reason", error))
                return False
        except (http.client.HTTPException, ValueError) as error:  # its text can contain the URL
            log.error("An alarm was not sent: %s: %s.", shown, type(error).__name__)
            return True
        time.sleep(pause)
    return False


def _open_alert_request(request: urllib.request.Request, seconds: float) -> None:
    """Send a request. The answer's body is not read.

    Raises:
        OSError: no answer within that time; a timeout of the socket alone permits one that arrives byte by byte.
    """
    found: list[Exception | None] = []

    def send() -> None:
        try:
            with _opener.open(request, timeout=seconds):
                found.append(None)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=send, name="webhook", daemon=True)
    thread.start()
    thread.join(seconds)
    error = found[0] if found else TimeoutError("timed out")
    if error is not None:
        raise error


class _RefusingRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without the alarm, to an address that the receiver chooses."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_RefusingRedirects)
