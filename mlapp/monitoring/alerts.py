"""Sends the start and the end of an alarm to a webhook and to the app's function."""

from __future__ import annotations

import base64
import html
import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from mlapp.config import Alert
from mlapp.data.secrets import expand_secrets_in_address, redact_secrets
from mlapp.errors import DataError, MlappError, translate_user_errors
from mlapp.monitoring.time_limit import limit_stage_time
from mlapp.monitoring.windows import Alarm, WindowReport
from mlapp.pipeline import Stage
from mlapp.plain_numbers import parse_plain_integer

log = logging.getLogger("mlapp.monitoring")
PATIENCE = 10.0
"""Maximum seconds to wait for a webhook's answer."""
ON_ALARM_PATIENCE = 60.0
"""Seconds after which the app's function is interrupted."""
PAUSES = (1.0, 5.0)
"""Seconds before each further attempt."""
LONGEST_WAIT = 3600.0
"""Maximum seconds that a receiver can ask mlapp to wait."""
TRANSIENT = (408, 425, 429)
"""Statuses below 500 after which a later attempt can succeed."""
FAR = timedelta(days=365)
"""Time for which Alertmanager keeps an alarm active without an update. The end of an alarm is always sent."""


class AlarmEvent(dict[str, Any]):
    """The start or the end of an alarm, as it is sent: a dict with entries that are also attributes.

    `app`, `version`, `kind`, `column`, `value`, `threshold`, `text`; `status` is `firing` or `resolved`; `since` and
    `until` are those of the window, as ISO 8601 texts.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def make_alarm_event(app: str, report: WindowReport, alarm: Alarm) -> AlarmEvent:
    """The event of the start of an alarm in a window."""
    return AlarmEvent(
        app=app,
        version=report.version,
        **msgspec.structs.asdict(alarm),
        status="firing",
        since=report.since.isoformat(),
        until=report.until.isoformat(),
    )


def call_on_alarm(event: AlarmEvent, stage: Stage) -> None:
    """Call the app's function. Errors in it are logged on one line, because the server passes on whole lines."""
    try:
        with limit_stage_time(stage.title, ON_ALARM_PATIENCE), translate_user_errors(stage.title):
            stage(event)
    except MlappError as error:
        log.error("%s", " ".join(f"{error.what} {error.todo}".split()), exc_info=log.isEnabledFor(logging.DEBUG))


def send_alarm(event: AlarmEvent, alert: Alert, *, is_retried: bool) -> float | None:
    """Send to one receiver. A failure is logged.

    Args:
        is_retried: make further attempts if it cannot be reached.

    Returns:
        None if the receiver has answered or can never be reached. Otherwise the seconds to wait before the next
        attempt, by the receiver's header Retry-After; 0 without it.
    """
    try:
        url = expand_secrets_in_address(alert.webhook)
    except DataError as error:  # another process may have the variable
        log.error("An alarm was not sent: %s", error.what)
        return 0.0
    body = msgspec.json.encode(make_alert_body(event, alert.format))
    return _post_alarm(url.value, describe_receiver(alert), body, alert.format, is_retried=is_retried)


def describe_receiver(alert: Alert) -> str:
    """A receiver's address without what can be a secret: the path of a webhook is often a token."""
    try:
        parts = urlsplit(alert.webhook)
        is_plain = bool(parts.hostname) and "$" not in parts.netloc
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if is_plain else redact_secrets(alert.webhook)
    except ValueError:
        return redact_secrets(alert.webhook)


def make_alert_body(event: AlarmEvent, format: str) -> Any:
    """The body for a receiver of that format.

    Slack: https://api.slack.com/messaging/webhooks. Alertmanager: `POST /api/v2/alerts`, its openapi.yaml.
    """
    if format == "slack":
        mark = ":rotating_light:" if event["status"] == "firing" else ":white_check_mark:"
        title = f"{mark} *{event['app']}* version {event['version']}, {event['kind']} {event['status']}"
        # Escaped, because a client's value can be a link or a mention:
        # https://api.slack.com/reference/surfaces/formatting.
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


def _post_alarm(url: str, receiver: str, body: bytes, format: str, *, is_retried: bool) -> float | None:
    """Send to one webhook; see `send_alarm`."""
    if not url.startswith(("http://", "https://")):
        log.error("An alarm was not sent: %s is not an http or https URL.", receiver)
        return None
    if format == "alertmanager" and "/api/" not in url:
        url = url.rstrip("/") + "/api/v2/alerts"
    try:
        request = _make_alert_request(url, body)
    except ValueError:
        log.error("An alarm was not sent: %s is not an http or https URL.", receiver)
        return None
    for pause in (*PAUSES, None) if is_retried else (None,):
        try:
            _open_alert_request(request, PATIENCE)
            return None
        except urllib.error.HTTPError as error:
            can_succeed = error.code >= 500 or error.code in TRANSIENT
            wait = _parse_retry_after(error.headers.get("Retry-After"))
            if pause is None or not can_succeed or wait > pause:
                log.error("An alarm was not sent: %s answers %d.", receiver, error.code)
                return wait if can_succeed else None
        except OSError as error:
            if pause is None:
                log.error("An alarm was not sent: %s cannot be reached: %s.", receiver, getattr(error, "reason", error))
                return 0.0
        except (http.client.HTTPException, ValueError) as error:  # its text can contain the URL
            log.error("An alarm was not sent: %s: %s.", receiver, type(error).__name__)
            return None
        time.sleep(pause)
    return 0.0


def _parse_retry_after(text: str | None) -> float:
    """The seconds of a header Retry-After, a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    try:
        seconds: float | None = parse_plain_integer((text or "0").strip())
        if seconds is None:
            seconds = parsedate_to_datetime(text or "").timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _make_alert_request(url: str, body: bytes) -> urllib.request.Request:
    """A POST of JSON. The URL's user and password become a header, because urllib does not support them.

    Raises:
        ValueError: the address is wrong.
    """
    headers = {"Content-Type": "application/json"}
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
        url = parts._replace(netloc=host).geturl()
    return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310


def _open_alert_request(request: urllib.request.Request, seconds: float) -> None:
    """Send a request. The answer's body is not read.

    Raises:
        OSError: no answer within that time. The socket's timeout alone would permit an answer that arrives byte by
        byte.
    """
    outcomes: list[Exception | None] = []

    def send() -> None:
        try:
            with _opener.open(request, timeout=seconds):
                outcomes.append(None)
        except Exception as error:  # raised below, in the caller's thread
            outcomes.append(error)

    thread = threading.Thread(target=send, name="webhook", daemon=True)
    thread.start()
    thread.join(seconds)
    error = outcomes[0] if outcomes else TimeoutError("timed out")
    if error is not None:
        raise error


class _RefusingRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without the alarm, to an address that the receiver chooses."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_RefusingRedirects)
