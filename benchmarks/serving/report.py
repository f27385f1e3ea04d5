"""The contests as Markdown tables of ratios, and which goals they meet."""

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
"""Least rate, over the best peer's."""
CPU = 0.45
"""Most CPU time a request, over the best peer's; not where the model sleeps."""
TAILS = {"rows": 3.0, "records": 3.0, "sleep": 2.0}
"""Most p99, over the p50."""
LONE = 1.15
"""Most of the model's own call that a single request takes beside the empty app's answer."""


def _median(loads: Sequence[Load], value: Callable[[Load], float]) -> float:
    return statistics.median(value(load) for load in loads)


def ratio(contest: Contest, name: str, other: str, connections: int) -> float | None:
    """Median over the rounds of `name`'s rate over `other`'s in the same round; None when either has none."""
    mine, theirs = (contest.servers.get(key, Measurements()).loads.get(connections, []) for key in (name, other))
    pairs = [a.rate / b.rate for a, b in zip(mine, theirs, strict=False) if b.rate]
    return statistics.median(pairs) if pairs else None


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f}" if microseconds < 10_000 else f"{microseconds / 1000:.0f}"


def _factor(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _table(contest: Contest, connections: int) -> Iterator[str]:
    yield "| server | req/s | ÷ empty ASGI app | mlapp ÷ it | p50 ms | p99 ms | CPU µs a request | errors |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name, measured in contest.servers.items():
        loads = measured.loads.get(connections)
        if not loads:
            yield f"| {name} | no result: {measured.failure} | | | | | | |"
            continue
        cells = (
            f"{_median(loads, lambda load: load.rate):,.0f}",
            _factor(ratio(contest, name, EMPTY, connections)),
            _factor(ratio(contest, MLAPP, name, connections)),
            _milliseconds(_median(loads, lambda load: load.p50)),
            _milliseconds(_median(loads, lambda load: load.p99)),
            f"{statistics.median(measured.cpu[connections]):,.0f}",
            f"{sum(load.errors for load in loads):,}",
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _alone(contest: Contest) -> Iterator[str]:
    """A lone request in short turns: the medians over all of them."""
    if contest.alone:
        own, empty, mine = (
            _milliseconds(statistics.median(each[name] for each in contest.alone)) for name in ("own", EMPTY, MLAPP)
        )
        yield f"In short turns: the model's own call {own} ms; a request to the empty app {empty}, to mlapp {mine} ms."


def _memory(contest: Contest) -> Iterator[str]:
    yield "| server | processes | MB above the libraries and the model |"
    yield "|---|--:|--:|"
    processes = {peer.name: peer.processes for peer in PEERS}
    for name, measured in contest.servers.items():
        if measured.extra_bytes is not None:
            yield f"| {name} | {processes[name]} | {measured.extra_bytes / 2**20:.0f} |"


def _best_peer(contest: Contest, connections: int) -> tuple[str, float] | None:
    """The fastest that is neither mlapp nor the ceiling, and mlapp's rate over its."""
    rates = {
        name: _median(measured.loads[connections], lambda load: load.rate)
        for name, measured in contest.servers.items()
        if name not in (LIMIT, EMPTY, MLAPP) and connections in measured.loads
    }
    if not rates:
        return None
    best = max(rates, key=lambda name: rates[name])
    factor = ratio(contest, MLAPP, best, connections)
    return None if factor is None else (best, factor)


def _goals(contests: Sequence[Contest]) -> Iterator[str]:
    yield "| goal | measured | |"
    yield "|---|---|---|"
    for contest in contests:
        name = contest.scenario.name
        if name in RATES:
            yield from _load_goals(contest, contest.scenario.connections[-1])
        if contest.alone and name != "sleep":
            share = statistics.median(each[MLAPP] / (each[EMPTY] + LONE * each["own"]) for each in contest.alone)
            goal = f"{name}, 1 connection: p50 ≤ empty ASGI app + {LONE} × the model's call"
            yield f"| {goal} | {share:.2f} of the limit | {_met(share <= 1)} |"
        extra = contest.servers.get(MLAPP, Measurements()).extra_bytes
        if extra is not None and name == "rows":
            yield f"| idle server's own memory ≤ 40 MB | {extra / 2**20:.0f} MB | {_met(extra <= MEMORY_GOAL)} |"


def _load_goals(contest: Contest, connections: int) -> Iterator[str]:
    """The goals under load, against the best peer."""
    name, best = contest.scenario.name, _best_peer(contest, connections)
    where = f"{name}, {connections} connections"
    mine = contest.servers[MLAPP]
    loads = mine.loads[connections]
    p50, p99 = _median(loads, lambda load: load.p50), _median(loads, lambda load: load.p99)
    if best:
        peer, rate = best
        least, said = RATES[name], f"{rate:.2f} times {peer}"
        yield f"| {where}: ≥ {least:g} times the best peer | {said} | {_met(rate >= least)} |"
        theirs = contest.servers[peer]
        cpu = statistics.median(a / b for a, b in zip(mine.cpu[connections], theirs.cpu[connections], strict=True))
        if name != "sleep":
            yield f"| {where}: CPU a request ≤ {CPU} of its | {cpu:.2f} | {_met(cpu <= CPU)} |"
        other = _median(theirs.loads[connections], lambda load: load.p99)
        said = f"{_milliseconds(p99)} : {_milliseconds(other)} ms"
        yield f"| {where}: p99 ≤ its | {said} | {_met(p99 <= other)} |"
    if name in TAILS:
        yield f"| {where}: p99 ≤ {TAILS[name]:g} × p50 | {p99 / p50:.1f} | {_met(p99 <= TAILS[name] * p50)} |"
    errors = sum(load.errors for load in loads)
    yield f"| {where}: nothing refused | {errors} | {_met(errors == 0)} |"


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def _lost(contests: Sequence[Contest]) -> Iterator[str]:
    """Every place where a peer is ahead of mlapp."""
    for contest in contests:
        for name, measured in contest.servers.items():
            for connections in measured.loads if name not in (LIMIT, EMPTY, MLAPP) else ():
                factor = ratio(contest, MLAPP, name, connections)
                if factor is not None and factor < 1:
                    where = f"{contest.scenario.name}, {connections} connections"
                    yield f"- {where}: {name} gives {1 / factor:.2f} times mlapp's rate."


def markdown(contests: Sequence[Contest], *, seconds: float, rounds: int) -> str:
    """The whole section."""
    lines = [
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {rounds} rounds of {seconds:g} s; medians. "
        f"Load average when it ended: {os.getloadavg()[1]:.1f} (above {os.cpu_count()} the machine was shared: "
        "trust the ratios, and the CPU time a request, more than the rates).",
        "",
        "### Goals",
        "",
        *_goals(contests),
        "",
        "### Where a peer is faster",
        "",
        *(list(_lost(contests)) or ["Nowhere in this run."]),
    ]
    for contest in contests:
        lines += [
            "",
            f"### {contest.scenario.title}",
            "",
            *_alone(contest),
        ]
        for connections in sorted({number for m in contest.servers.values() for number in m.loads}):
            lines += ["", f"{connections} connection{'s' * (connections > 1)}:", "", *_table(contest, connections)]
    if contests:
        lines += ["", "### Memory of the idle server", "", *_memory(contests[0])]
    return "\n".join(lines)


def write(text: str, readme: Path) -> None:
    """Put the section between its marks in the README."""
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
