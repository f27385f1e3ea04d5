"""The search as one self-contained HTML file."""

from __future__ import annotations

import html
import warnings
from pathlib import Path
from typing import Any

from mlapp.tuning.study import SearchResult


def write_search_page(result: SearchResult, file: Path) -> Path:
    """Write the best trials and Optuna's plots: history, importance, slices, parallel coordinates."""
    from optuna import visualization as plots

    makers = (
        plots.plot_optimization_history,
        plots.plot_param_importances,
        plots.plot_slice,
        plots.plot_parallel_coordinate,
        plots.plot_intermediate_values,
    )
    # Only the first plot contains the library of plots.
    parts = [_render_search_plot(make_plot, result.study, first=not number) for number, make_plot in enumerate(makers)]
    names = list(result.best.parameters)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("trial", result.metric, *names))
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(_format_search_page_cell(value))}</td>"
            for value in _list_search_page_values(trial, names)
        )
        + "</tr>"
        for trial in result.rank_trials()[:10]
    )
    title = html.escape(f"{result.study.study_name}: {len(result.trials)} trials")
    file.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:16px system-ui;margin:2rem auto;max-width:70rem}td,th{padding:.2rem .8rem;text-align:right}"
        f"</style><h1>{title}</h1><table><tr>{head}</tr>{rows}</table>{''.join(parts)}</html>",
        encoding="utf-8",
    )
    return file


def _render_search_plot(make_plot: Any, study: Any, *, first: bool) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # if all trials are equal
            text: str = make_plot(study).to_html(full_html=False, include_plotlyjs=first)
        return text
    except (ValueError, RuntimeError, ImportError):
        return ""  # importance needs scikit-learn and two different trials


def _list_search_page_values(trial: Any, names: list[str]) -> list[Any]:
    return [trial.number, trial.value, *(trial.parameters.get(name) for name in names)]


def _format_search_page_cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
