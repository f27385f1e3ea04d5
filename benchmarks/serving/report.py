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
        of_empty = ratio(contest, MLAPP, EMPTY, 32)
        if name == "rows" and of_empty is not None:
            yield f"| rows, 32 connections: ≥ 0.65 of the empty ASGI app | {of_empty:.2f} | {_met(of_empty >= 0.65)} |"
        if best := _best_peer(contest, 32):
            least = {"rows": 10, "records": 5}.get(name, 1)
            said = f"{best[1]:.1f} times {best[0]}"
            yield f"| {name}, 32 connections: ≥ {least} times the best peer | {said} | {_met(best[1] >= least)} |"
        if contest.alone and name != "sleep":
            share = statistics.median(each[MLAPP] / (each[EMPTY] + 1.3 * each["own"]) for each in contest.alone)
            goal = f"{name}, 1 connection: p50 ≤ empty ASGI app + 1.3 × the model's call"
            yield f"| {goal} | {share:.2f} of the limit | {_met(share <= 1)} |"
        extra = contest.servers.get(MLAPP, Measurements()).extra_bytes
        if extra is not None and name == "rows":
            yield f"| idle server's own memory ≤ 40 MB | {extra / 2**20:.0f} MB | {_met(extra <= MEMORY_GOAL)} |"


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
