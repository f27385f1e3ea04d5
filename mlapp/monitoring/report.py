"""Renders the report: one self-contained page with the data of `mlapp monitor`."""

from __future__ import annotations

import errno
import html
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from mlapp.baseline import Baseline, Column
from mlapp.errors import UsageError
from mlapp.monitoring.counts import Counts, merge_counts
from mlapp.monitoring.drift import compute_drift_distance
from mlapp.monitoring.history import list_history_windows, read_history_baselines, read_history_counts
from mlapp.monitoring.inspection import describe_unwatched_versions, inspect_windows, open_place_for_inspection
from mlapp.monitoring.truth import describe_unknown_truth_classes
from mlapp.monitoring.windows import WindowReport, format_window_quality, format_window_segments
from mlapp.printable_text import make_printable
from mlapp.project import Project

BARS = 24
"""Number of bars of a feature's distribution."""
WIDTH, HEIGHT = 240, 64
MOST_WINDOWS = 96
"""Maximum number of windows in a report: the last ones."""
UNREPLACEABLE = (errno.EACCES, errno.EBUSY, errno.EPERM, errno.EROFS, errno.EXDEV)
"""Errors of a file that cannot be replaced, but perhaps written."""


def write_report(
    project: Project, file: Path, *, since: float | None = None, until: float | None = None, version: str | None = None
) -> None:
    """Write the page.

    Raises:
        StoreError: the data cannot be read. UsageError: the path is a folder, or in no folder. OSError: the file cannot
            be written.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder.", "Give a file, such as --html report.html.")
    if not file.parent.is_dir():
        raise UsageError(f"There is no folder {file.parent}.", "Give a file in a folder that exists.")
    reports = inspect_windows(project, since=since, until=until, version=version)
    place = open_place_for_inspection(project)
    windows = []
    if reports:
        begin, end = reports[0].since.timestamp(), reports[-1].until.timestamp()
        number = reports[-1].version if version else None
        windows = list_history_windows(place, since=begin, until=end, version=number)
    baselines = read_history_baselines(project.store, project.name, (number for number, _ in windows))
    counts = read_history_counts(place, windows, baselines)
    notes = describe_unwatched_versions(project, reports)
    _write_whole_page(file, render_report_page(project.name, reports, counts, baselines, notes=notes))


def _write_whole_page(file: Path, page: str) -> None:
    """Replace the file at once, so that a reader or a killed process sees no half page.

    Writes into the file itself if it is a device such as /dev/stdout, is mounted, or is in a folder that is not
    writable.
    """
    if file.exists() and not file.is_file():
        file.write_text(page, encoding="utf-8")
        return
    part = file.resolve().with_name(f".{uuid.uuid4().hex}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(file.resolve())
    except OSError as error:
        if not file.exists() or error.errno not in UNREPLACEABLE:
            raise OSError(error.errno, error.strerror, str(file)) from None
        file.write_text(page, encoding="utf-8")
    finally:
        with suppress(OSError):
            part.unlink()


def render_report_page(
    app: str,
    reports: Sequence[WindowReport],
    counts: Sequence[Counts],
    baselines: Mapping[str, Baseline],
    *,
    notes: Sequence[str] = (),
    is_evaluated: bool = True,
) -> str:
    """The page as HTML.

    Args:
        reports: in order.
        counts: of the same windows.
        baselines: version → its baseline.
        notes: sentences to show.
        is_evaluated: whether the reports contain truths and quality.
    """
    reports = reports[-MOST_WINDOWS:]
    counts = [one for one in counts if reports and one.since >= reports[0].since.timestamp()]
    version = counts[-1].version if counts else next((report.version for report in reversed(reports)), None)
    newest = merge_counts(one for one in counts if one.version == version)
    baseline = baselines.get(version or "")
    answered = [report for report in reports if report.state != "empty"]
    last = [report for report in answered if report.until == answered[-1].until]
    state = "alarm" if any(report.alarms for report in last) else "quiet" if last else "empty"
    words = {"quiet": "Nothing is wrong", "alarm": "Something is wrong", "empty": "Nothing was predicted"}[state]
    alarms = "".join(f"<li>{_format_report_value(alarm.text)}</li>" for report in last for alarm in report.alarms)
    created = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts = [
        f"<h1>{_format_report_value(app)}</h1>",
        f"<p class=muted>Version {_format_report_value(version or 'none')}, {created}</p>",
        f'<section id="state" class="{state}"><h2>{words}</h2><ul>{alarms}</ul></section>',
        *(f"<p>{_format_report_value(note)}</p>" for note in notes),
        _render_report_history(reports),
        _render_report_windows(reports, is_evaluated=is_evaluated),
        _render_report_features(baseline, newest, reports, version),
    ]
    return PAGE.replace("{title}", _format_report_value(f"{app} monitoring")).replace("{body}", "".join(parts))


def render_live_report(
    app: str,
    reports: Sequence[WindowReport],
    counts: Sequence[Counts],
    baselines: Mapping[str, Baseline],
    notes: Sequence[str] = (),
) -> str:
    """The page for a server, which reloads every few seconds. It has no truths: a server does not evaluate them."""
    notes = [*notes, "For truths and quality, run mlapp monitor."]
    page = render_report_page(app, reports, counts, baselines, notes=notes, is_evaluated=False)
    return page.replace("<head>", '<head><meta http-equiv="refresh" content="10">', 1)


def _render_report_history(reports: Sequence[WindowReport]) -> str:
    if not reports:
        return ""
    rows = [float(report.rows) for report in reports]
    refused = [float(report.refused) for report in reports]
    drift = [max(report.distances.values(), default=None) for report in reports]
    charts = [
        _render_report_chart("Rows", rows),
        _render_report_chart("Refused rows", refused),
        _render_report_chart("Largest distance from training", drift),
    ]
    names = dict.fromkeys(name for report in reports for name in report.metrics)
    charts += [_render_report_chart(name, [report.metrics.get(name) for report in reports]) for name in names]
    estimated = [
        next((metric.value for metric in report.quality.values() if metric.estimated), None) for report in reports
    ]
    if any(value is not None for value in estimated):
        charts.append(_render_report_chart("accuracy, estimated without truths", estimated))
    return f'<h2>Over time</h2><div class="grid">{"".join(charts)}</div>'


def _render_report_chart(title: str, values: Sequence[float | None]) -> str:
    present = [value for value in values if value is not None]
    if not present:
        return ""
    low, high = min(0.0, *present) if len(present) > 1 else min(0.0, present[0]), max(present)
    span = (high - low) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    places = [(at * step, value) for at, value in enumerate(values) if value is not None]
    points = [(x, HEIGHT - 4 - (value - low) / span * (HEIGHT - 8)) for x, value in places]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5"/>'
    return (
        f"<figure><figcaption>{_format_report_value(title)} <b>{present[-1]:.4g}</b></figcaption>"
        f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 4}" role="img">'
        f"<title>{_format_report_value(title)}: {present[-1]:.4g}</title>"
        f'<polyline class="line" points="{line}"/>{dots}</svg></figure>'
    )


def _render_report_windows(reports: Sequence[WindowReport], *, is_evaluated: bool) -> str:
    if not reports:
        return ""
    lines = []
    for report in reversed(reports):
        quality = "; ".join(filter(None, [format_window_quality(report), *format_window_segments(report)]))
        texts = [alarm.text for alarm in report.alarms]
        if report.unknown_classes:
            texts.append(describe_unknown_truth_classes(report.unknown_classes))
        lines.append(
            f'<tr class="{report.state}"><td>{report.since:%Y-%m-%d %H:%M:%S}<td>{_format_report_value(report.version)}'
            f"<td>{report.rows}"
            f"<td>{report.refused}{f'<td>{report.truths}' if is_evaluated else ''}"
            f"<td>{report.state}{'' if report.closed else ', open'}"
            f"{f'<td>{_format_report_value(quality)}' if is_evaluated else ''}"
            f"<td>{_format_report_value('; '.join(texts))}</tr>"
        )
    truths, quality = ("<th>truths", "<th>quality") if is_evaluated else ("", "")
    head = f"<tr><th>since (UTC)<th>version<th>rows<th>refused{truths}<th>state{quality}<th>alarms</tr>"
    return f"<details open><summary>Windows</summary><table>{head}{''.join(lines)}</table></details>"


def _render_report_features(
    baseline: Baseline | None, counts: Counts | None, reports: Sequence[WindowReport], version: str | None
) -> str:
    if baseline is None or counts is None:
        return "<p>This version has no baseline: train it again to compare live data with its training data.</p>"
    own = [report for report in reports if report.version == version]
    alarming = {alarm.column for report in own[-1:] for alarm in report.alarms}
    cards = [
        (compute_drift_distance(column, live), _render_report_card(column, live, own, column.name in alarming))
        for column in (*baseline.predictions, *baseline.features)
        if (live := counts.columns.get(column.name)) is not None
        and len(live) == len(column.counts) + 3
        and column.kind != "text"
    ]
    ordered = [card for _, card in sorted(cards, key=lambda pair: -pair[0])]
    fields = "".join(f"<li>{_format_report_value(field)}: {count}</li>" for field, count in counts.fields.items())
    refused = f"<h2>Refused rows by field</h2><ul>{fields}</ul>" if fields else ""
    legend = "<p class=muted>Gray: training. Blue: live, all windows of this page. Most different first.</p>"
    return f'{refused}<h2>Predictions and features</h2>{legend}<div class="grid">{"".join(ordered)}</div>'


def _render_report_card(column: Column, live: list[int], reports: Sequence[WindowReport], is_alarming: bool) -> str:
    rows = sum(live) or 1
    before, now, labels = _compute_report_bars(column, live)
    distance = compute_drift_distance(column, live)
    facts = [f"distance {distance:.3f}"]
    if live[-1]:
        facts.append(f"missing {live[-1] / rows:.1%}")
    if column.kind == "number" and live[-3] + live[-2]:
        facts.append(f"out of range {(live[-3] + live[-2]) / rows:.1%}")
    if column.kind == "category" and live[-3]:
        facts.append(f"new values {live[-3] / rows:.1%}")
    largest = max(*before, *now, 1e-9)
    step = WIDTH / len(before)
    old = _render_report_path(before, step, largest)
    new = _render_report_path(now, step, largest)
    history = [report.distances.get(column.name) for report in reports]
    trend = _render_report_trend(history)
    mark = " alarming" if is_alarming else ""
    name = _format_report_value(column.name)
    return (
        f'<figure class="feature{mark}"><figcaption>{name} <span class=muted>{", ".join(facts)}</span>'
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{_format_report_value(labels)}</title>'
        f'<path class="before" d="{old}"/><path class="now" d="{new}"/></svg>{trend}'
        f"<p class=muted>{_format_report_value(labels)}</p></figure>"
    )


def _compute_report_bars(column: Column, live: list[int]) -> tuple[list[float], list[float], str]:
    """The shares in training and in live rows, with their labels."""
    trained, rows = (sum(column.counts) + column.others) or 1, (sum(live) - live[-1]) or 1
    if column.kind == "category":
        shown_values = min(BARS - 1, len(column.counts))
        before = [count / trained for count in column.counts[:shown_values]]
        now = [count / rows for count in live[:shown_values]]
        before.append(1 - sum(before))
        now.append(max(0.0, (sum(live[shown_values:-1])) / rows))
        return before, now, f"{', '.join(column.values[:6])}{' …' if len(column.values) > 6 else ''}"
    low, high = column.minimum or 0.0, column.maximum or 0.0
    edges = column.edges
    if not edges:
        return [0.0, 0.0], [live[-3] / rows, live[-2] / rows], "no values in training"
    begin = edges[max(0, int(len(edges) * 0.005))]
    end = edges[min(len(edges) - 1, int(len(edges) * 0.995))]
    width = (end - begin) / BARS or 1.0
    before, now = [0.0] * (BARS + 2), [0.0] * (BARS + 2)
    last = low
    for edge, old, new in zip(edges, column.counts, live, strict=False):
        for at, share in _spread_bin_over_bars(last, edge, begin, width):
            before[at] += share * old / trained
            now[at] += share * new / rows
        last = edge
    now[0] += live[-3] / rows
    now[-1] += live[-2] / rows
    return before, now, f"{low:.4g} to {high:.4g} in training"


def _spread_bin_over_bars(low: float, high: float, begin: float, width: float) -> Iterable[tuple[int, float]]:
    """The bars that overlap a bin, with the bin's share in each bar."""
    first = min(max(int((low - begin) // width), -1), BARS) + 1
    last = min(max(int((high - begin) // width), -1), BARS) + 1
    if last - first < 1 or high <= low:
        return [(last, 1.0)]
    return [(at, 1 / (last - first + 1)) for at in range(first, last + 1)]


def _render_report_path(shares: Sequence[float], step: float, largest: float) -> str:
    return "".join(
        f"M{at * step:.0f} {HEIGHT}V{HEIGHT - share / largest * (HEIGHT - 2):.0f}H{(at + 1) * step - 1:.0f}V{HEIGHT}Z"
        for at, share in enumerate(shares)
        if share > 0.002 * largest
    )


def _render_report_trend(values: Sequence[float | None]) -> str:
    present = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(present) < 2:
        return ""
    largest = max(0.1, *(value for _, value in present))
    step = WIDTH / max(1, len(values) - 1)
    line = " ".join(f"{at * step:.0f},{16 - value / largest * 14:.0f}" for at, value in present)
    shape = f'<polyline class="line" points="{line}"/>'
    return f'<svg viewBox="0 0 {WIDTH} 18"><title>distance over time</title>{shape}</svg>'


def _format_report_value(value: str) -> str:
    return html.escape(make_printable(value))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root{color-scheme:light dark;--fg:#1c2128;--muted:#667;
--line:#d5d9e0;--before:#b9c0cc;--now:#2563eb;--bad:#c62828;--ok:#2e7d32}
@media(prefers-color-scheme:dark){:root{--fg:#e6e8ec;--muted:#99a;--line:#3a404a;--before:#566;--now:#6ea0ff;--bad:#ff7b72;--ok:#7ee787}}
body{font:14px/1.5 system-ui,sans-serif;color:var(--fg);max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}.muted{color:var(--muted);font-size:12px}
#state{border-left:4px solid var(--ok);padding:.1rem 1rem;margin:1rem 0}#state.alarm{border-color:var(--bad)}
#state h2{margin:.4rem 0}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:1rem}
figure{margin:0;padding:.5rem;border:1px solid var(--line);border-radius:6px}figure.alarming{border-color:var(--bad)}
figcaption{overflow-wrap:anywhere}figure p{margin:0;overflow-wrap:anywhere}svg{width:100%;display:block}
.line{fill:none;stroke:var(--now);stroke-width:1.5}circle{fill:var(--now)}.before{fill:var(--before)}
.now{fill:none;stroke:var(--now);stroke-width:1.5}table{border-collapse:collapse;width:100%;font-size:13px}
td,th{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tr.alarm td{color:var(--bad)}summary{cursor:pointer;font-weight:600;margin:1rem 0 .3rem}
</style></head><body>{body}</body></html>
"""
