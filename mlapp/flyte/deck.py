"""The evaluation as a page in Flyte's console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = (
    "<style>table{border-collapse:collapse;font:14px sans-serif;margin:0 0 24px}"
    "td,th{border:1px solid #ddd;padding:4px 12px;text-align:left}th{background:#f5f5f5}</style>"
)


def render_metrics_deck(app: str, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of each split as HTML, as `mlapp train` prints them."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [[split, *(_format_deck_number(values.get(name)) for name in names)] for split, values in metrics.items()]
    return f"{STYLE}<h2>{escape(app)}</h2>{_render_deck_table(['split', *names], rows)}"


def publish_evaluation_deck(html: str) -> None:
    """Show the page on the running task."""
    import flytekit

    flytekit.Deck("Evaluation", html)


def _render_deck_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["".join(f"<th>{escape(str(name))}</th>" for name in head)]
    lines += ["".join(f"<td>{escape(str(value))}</td>" for value in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _format_deck_number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
