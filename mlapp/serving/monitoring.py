"""Monitoring of a served model: the recorder, and the routes `/feedback` and `/monitor`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mlapp.config import Monitor
from mlapp.errors import MissingExtraError, StoreError
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.history import list_history_windows, read_history_counts, read_seasonal_counts
from mlapp.monitoring.place import Place, parse_seconds
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.recording import make_recorder
from mlapp.monitoring.truth import Truths
from mlapp.serving.application import Application
from mlapp.serving.decoding.json_body import bound_json_values, decode_json, encode_json
from mlapp.serving.decoding.json_chunks import cut_json_array
from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.inference.body_decoding import run_decoder
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.request_features import receive_request_body
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import Request, Response
from mlapp.serving.web.problems import HttpError
from mlapp.serving.web.request_id import make_request_id

if TYPE_CHECKING:
    from mlapp.monitoring.windows import WindowReport

log = logging.getLogger("mlapp.serving")
HTML = b"text/html; charset=utf-8"
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
MAX_VALUES_AT_ONCE = 200_000
"""Maximum values of a body of truths that are decoded in one call."""
FRESH = 2.0
"""Seconds for which the live report is cached: reading the counts of all replicas takes a while."""


def monitor_endpoint(
    application: Application, endpoint: Endpoint, settings: Monitor, place: Place | None
) -> Recorder | None:
    """Record the predictions of an endpoint, and add its routes. Returns the recorder, if any.

    Args:
        place: stores counts, log and truths. None keeps counts in memory.
    """
    _add_monitoring_feedback(application, endpoint, place, ColumnPrivacy(settings.columns, endpoint.name))
    recorder = make_recorder(endpoint.name, settings, place, application.metrics.registry, make_request_id)
    if recorder is None:
        return None
    endpoint.record_with(recorder)
    _add_monitoring_page(application, endpoint, place, recorder)

    async def start_recorder() -> None:
        recorder.start()

    async def stop_recorder() -> None:
        await asyncio.to_thread(recorder.stop)

    application.on_start.append(start_recorder)
    application.on_close.append(stop_recorder)
    return recorder


def _add_monitoring_feedback(
    application: Application, endpoint: Endpoint, place: Place | None, rules: ColumnPrivacy
) -> None:
    """Add `POST /feedback`, which answers after the truths are stored."""

    async def answer_feedback(request: Request) -> Response:
        if place is None:
            raise HttpError(503, "This server cannot store true values: set monitor.url.")
        body, budget = await receive_request_body(endpoint, request)
        truths = Truths(place, rules, endpoint.current.baseline)
        checked = await run_decoder(
            lambda: truths.check_truths(_decode_monitoring_truths(body, budget)),
            len(body),
            budget,
            request.wait_for_disconnect,
        )
        try:
            accepted = await asyncio.to_thread(truths.write_truths, checked)
        except (StoreError, MissingExtraError) as error:
            log.error("%s: the true values were not stored: %s", endpoint.name, error.what)
            raise HttpError(503, "The true values cannot be stored now. Send them again.") from None
        return Response(encode_json(await asyncio.to_thread(truths.describe_accepted, accepted, checked)))

    application.add_route("POST", f"{endpoint.prefix}/feedback", answer_feedback)


def _decode_monitoring_truths(body: bytes, budget: Budget) -> Any:
    """Parse a body of truths; a large one in chunks.

    Raises:
        HttpError: 400, it is not JSON; 413, a single truth has too many values.
    """
    truths: list[Any] = []
    for chunk in cut_json_array(body):
        if len(chunk) > LARGE:
            bound_json_values(chunk, MAX_VALUES_AT_ONCE)
        values = decode_json(chunk)
        if len(chunk) == len(body):
            return values
        budget.check()
        truths += values
    return truths


def _add_monitoring_page(application: Application, endpoint: Endpoint, place: Place | None, recorder: Recorder) -> None:
    """Add `GET /monitor`: the live report of all replicas if they share a place, otherwise of this one."""
    cached_page: tuple[float, bytes] = (0.0, b"")

    async def answer_report(request: Request) -> Response:
        nonlocal cached_page
        if time.monotonic() - cached_page[0] > FRESH:
            cached_page = (
                time.monotonic(),
                await asyncio.to_thread(render_monitoring_report, endpoint.name, place, recorder),
            )
        return Response(cached_page[1], HTML, headers=[(b"content-security-policy", POLICY)])

    application.add_route("GET", f"{endpoint.prefix}/monitor", answer_report)


def render_monitoring_report(app: str, place: Place | None, recorder: Recorder) -> bytes:
    """The live report of all replicas if they share a place, otherwise of this one."""
    # Imported at first use, to keep the start of the server fast.
    from mlapp.monitoring.alarms import find_window_alarms
    from mlapp.monitoring.report import MOST_WINDOWS, render_live_report

    now = time.time()
    counts: Sequence[Counts] = recorder.list_counts()
    earlier: Sequence[Counts] = ()
    baselines = recorder.baselines()
    if place is not None:
        seconds = parse_seconds(recorder.settings.window)
        try:
            windows = list_history_windows(place, since=now - MOST_WINDOWS * seconds, until=now + seconds)
            counts = read_history_counts(place, windows, baselines) or counts
            earlier = read_seasonal_counts(place, recorder.settings, windows, baselines)
        except StoreError as error:
            log.warning("%s: the live report shows only this replica: %s", app, error.what)
    reports = find_window_alarms(counts, baselines, recorder.settings, now=now, earlier_counts=earlier)
    if place is not None:
        reports = _add_quality_alarms(app, place, reports)
    return render_live_report(app, reports, counts, baselines, recorder.list_notes()).encode()


def _add_quality_alarms(app: str, place: Place, reports: list[WindowReport]) -> list[WindowReport]:
    """The reports with the active alarms of quality in the last one of each version: `mlapp monitor run` finds them."""
    # Imported at first use: they load urllib's clients.
    from mlapp.monitoring.alarm_ledger import Ledger
    from mlapp.monitoring.windows import Alarm

    try:
        active = [alarm for alarm in Ledger(place, ()).list_active_alarms() if alarm["kind"] == "quality"]
    except StoreError as error:
        log.warning("%s: the live report shows no alarms of quality: %s", app, error.what)
        return reports
    last = {report.version: at for at, report in enumerate(reports)}
    for alarm in active:
        at = last.get(alarm["version"])
        if at is not None:
            fields = {name: alarm[name] for name in Alarm.__struct_fields__}
            alarms = [*reports[at].alarms, Alarm(**fields)]
            reports[at] = msgspec.structs.replace(reports[at], alarms=alarms, state="alarm")
    return reports
