"""The output of a function or endpoint on AWS, from a log group of CloudWatch Logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from mlapp.deploy.aws.session import AwsSession
from mlapp.deploy.target import LogLine

FOLLOW_PAUSE = 2.0
MAX_DELAY = 60.0
"""Seconds by which CloudWatch can deliver an event late."""


def read_log_group(
    session: AwsSession,
    group: str,
    *,
    follow: bool,
    tail: int | None,
    since: float | None,
    name_replica: Callable[[str], str] = str,
) -> Iterator[LogLine]:
    """The lines of a log group, oldest first; see `Target.logs`.

    Args:
        name_replica: makes a replica's name from the name of its log stream.

    Raises:
        DeployError: AWS refuses, or the group does not exist.
    """
    printed_ids: set[str] = set()

    def read_new_lines(start: float | None) -> list[LogLine]:
        options = {} if start is None else {"startTime": int(start * 1000)}
        with session.translate_errors():
            pages = session.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group, **options)
            events = [event for page in pages for event in page["events"] if event["eventId"] not in printed_ids]
        printed_ids.update(event["eventId"] for event in events)
        return [_make_log_group_line(event, name_replica) for event in events]

    start = None if since is None else time.time() - since
    lines = read_new_lines(start)
    yield from lines if tail is None else lines[max(0, len(lines) - tail) :]
    while follow:
        time.sleep(FOLLOW_PAUSE)
        start = max(start or 0.0, time.time() - MAX_DELAY)
        yield from read_new_lines(start)


def _make_log_group_line(event: dict[str, Any], name_replica: Callable[[str], str]) -> LogLine:
    moment = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
    return LogLine(name_replica(str(event.get("logStreamName", ""))), str(event["message"]).rstrip("\n"), moment)
