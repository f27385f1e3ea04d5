"""Renders the contests as Markdown tables of ratios, with the goals that they meet."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .contest import Contest, Measurements
from .load import Load
from .peers import EMPTY, LIMIT, MLAPP, PEERS

BEGIN, END = "<!-- serving: begin -->", "<!-- serving: end -->"
MEMORY_GOAL = 40 * 2**20
RATES = {"rows": 2.0, "records": 2.0, "many": 2.0, "sleep": 1.2}
"""Minimum rate, relative to the best peer."""
CPU = 0.45
"""Maximum CPU time per request, relative to the best peer, except if the model sleeps."""
TAILS = {"rows": 3.0, "records": 3.0, "sleep": 2.0}
"""Maximum p99, relative to the p50."""
LONE = 1.15
"""Maximum latency of a single request, minus that of the empty app, relative to the model's own call."""


def _compute_load_median(loads: Sequence[Load], value: Callable[[Load], float]) -> float:
    return statistics.median(value(load) for load in loads)


def compute_rate_ratio(contest: Contest, name: str, other: str, connections: int) -> float | None:
    """The median ratio of two servers' rates in the same round; None if one of them has no rate."""
    mine, theirs = (contest.servers.get(key, Measurements()).loads.get(connections, []) for key in (name, other))
    pairs = [a.rate / b.rate for a, b in zip(mine, theirs, strict=False) if b.rate]
    return statistics.median(pairs) if pairs else None


def _format_report_milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f}" if microseconds < 10_000 else f"{microseconds / 1000:.0f}"


def _format_report_factor(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _iterate_report_load_table(contest: Contest, connections: int) -> Iterator[str]:
    yield "| server | req/s | ÷ empty ASGI app | mlapp ÷ it | p50 ms | p99 ms | CPU µs a request | errors |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name, measured in contest.servers.items():
        loads = measured.loads.get(connections)
        if not loads:
            yield f"| {name} | no result: {measured.failure} | | | | | | |"
            continue
        cells = (
            f"{_compute_load_median(loads, lambda load: load.rate):,.0f}",
            _format_report_factor(compute_rate_ratio(contest, name, EMPTY, connections)),
            _format_report_factor(compute_rate_ratio(contest, MLAPP, name, connections)),
            _format_report_milliseconds(_compute_load_median(loads, lambda load: load.p50)),
            _format_report_milliseconds(_compute_load_median(loads, lambda load: load.p99)),
            f"{statistics.median(measured.cpu[connections]):,.0f}",
            f"{sum(load.errors for load in loads):,}",
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _iterate_report_lone_request(contest: Contest) -> Iterator[str]:
    """The median latencies of single requests in short turns."""
    if contest.alone:
        own, empty, mine = (
            _format_report_milliseconds(statistics.median(each[name] for each in contest.alone))
            for name in ("own", EMPTY, MLAPP)
        )
        yield f"In short turns: the model's own call {own} ms; a request to the empty app {empty}, to mlapp {mine} ms."


def _iterate_report_memory_table(contest: Contest) -> Iterator[str]:
    yield "| server | processes | MB above the libraries and the model |"
    yield "|---|--:|--:|"
    processes = {peer.name: peer.processes for peer in PEERS}
    for name, measured in contest.servers.items():
        if measured.extra_bytes is not None:
            yield f"| {name} | {processes[name]} | {measured.extra_bytes / 2**20:.0f} |"


def _best_peer(contest: Contest, connections: int) -> tuple[str, float] | None:
    """The fastest peer except for mlapp and the constant answers, and mlapp's rate relative to it."""
    rates = {
        name: _compute_load_median(measured.loads[connections], lambda load: load.rate)
        for name, measured in contest.servers.items()
        if name not in (LIMIT, EMPTY, MLAPP) and connections in measured.loads
    }
    if not rates:
        return None
    best = max(rates, key=lambda name: rates[name])
    factor = compute_rate_ratio(contest, MLAPP, best, connections)
    return None if factor is None else (best, factor)


def _iterate_report_goals(contests: Sequence[Contest]) -> Iterator[str]:
    yield "| goal | measured | |"
    yield "|---|---|---|"
    for contest in contests:
        name = contest.scenario.name
        if name in RATES:
            yield from _iterate_report_load_goals(contest, contest.scenario.connections[-1])
        if contest.alone and name != "sleep":
            share = statistics.median(each[MLAPP] / (each[EMPTY] + LONE * each["own"]) for each in contest.alone)
            goal = f"{name}, 1 connection: p50 ≤ empty ASGI app + {LONE} × the model's call"
            yield f"| {goal} | {share:.2f} of the limit | {_format_report_verdict(share <= 1)} |"
        extra = contest.servers.get(MLAPP, Measurements()).extra_bytes
        if extra is not None and name == "rows":
            result = _format_report_verdict(extra <= MEMORY_GOAL)
            yield f"| idle server's own memory ≤ 40 MB | {extra / 2**20:.0f} MB | {result} |"


def _iterate_report_load_goals(contest: Contest, connections: int) -> Iterator[str]:
    """The goals under load, against the best peer."""
    name, best = contest.scenario.name, _best_peer(contest, connections)
    where = f"{name}, {connections} connections"
    mine = contest.servers[MLAPP]
    loads = mine.loads[connections]
    p50, p99 = _compute_load_median(loads, lambda load: load.p50), _compute_load_median(loads, lambda load: load.p99)
    if best:
        peer, rate = best
        minimum, result = RATES[name], f"{rate:.2f} times {peer}"
        yield f"| {where}: ≥ {minimum:g} times the best peer | {result} | {_format_report_verdict(rate >= minimum)} |"
        theirs = contest.servers[peer]
        cpu = statistics.median(a / b for a, b in zip(mine.cpu[connections], theirs.cpu[connections], strict=True))
        if name != "sleep":
            yield f"| {where}: CPU a request ≤ {CPU} of its | {cpu:.2f} | {_format_report_verdict(cpu <= CPU)} |"
        other = _compute_load_median(theirs.loads[connections], lambda load: load.p99)
        result = f"{_format_report_milliseconds(p99)} : {_format_report_milliseconds(other)} ms"
        yield f"| {where}: p99 ≤ its | {result} | {_format_report_verdict(p99 <= other)} |"
    if name in TAILS:
        verdict = _format_report_verdict(p99 <= TAILS[name] * p50)
        yield f"| {where}: p99 ≤ {TAILS[name]:g} × p50 | {p99 / p50:.1f} | {verdict} |"
    errors = sum(load.errors for load in loads)
    yield f"| {where}: nothing refused | {errors} | {_format_report_verdict(errors == 0)} |"


def _format_report_verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _iterate_report_losses(contests: Sequence[Contest]) -> Iterator[str]:
    """A line for each measurement in which a peer is faster than mlapp."""
    for contest in contests:
        for name, measured in contest.servers.items():
            for connections in measured.loads if name not in (LIMIT, EMPTY, MLAPP) else ():
                factor = compute_rate_ratio(contest, MLAPP, name, connections)
                if factor is not None and factor < 1:
                    where = f"{contest.scenario.name}, {connections} connections"
                    yield f"- {where}: {name} gives {1 / factor:.2f} times mlapp's rate."


def render_report(contests: Sequence[Contest], *, seconds: float, rounds: int) -> str:
    """The whole section."""
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {rounds} rounds of {seconds:g} s; medians. "
        f"Load average when it ended: {os.getloadavg()[1]:.1f} (above {os.cpu_count()} the machine was shared: "
        "trust the ratios, and the CPU time a request, more than the rates).",
        "",
        "### Goals",
        "",
        *_iterate_report_goals(contests),
        "",
        "### Where a peer is faster",
        "",
        *(list(_iterate_report_losses(contests)) or ["Nowhere in this run."]),
    ]
    for contest in contests:
        lines += [
            "",
            f"### {contest.scenario.title}",
            "",
            *_iterate_report_lone_request(contest),
        ]
        for connections in sorted({number for m in contest.servers.values() for number in m.loads}):
            lines += [
                "",
                f"{connections} connection{'s' * (connections > 1)}:",
                "",
                *_iterate_report_load_table(contest, connections),
            ]
    if contests:
        lines += ["", "### Memory of the idle server", "", *_iterate_report_memory_table(contests[0])]
    return "\n".join(lines)


def write_report(text: str, readme: Path) -> None:
    """Replace the section between its markers in the README."""
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
