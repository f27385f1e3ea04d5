"""Checks that the columns and metrics that `monitor:` of mlapp.yaml names exist."""

from __future__ import annotations

from collections.abc import Iterable

from mlapp.config import Monitor
from mlapp.errors import ConfigError, suggest_nearest
from mlapp.frameworks.metrics import is_metric_improvement
from mlapp.schema import Schema

LOG_PREFIXES = ("prediction", "key.", "feature.")
"""Prefixes of the log's columns that are not features."""


def check_monitored_columns(settings: Monitor, schema: Schema) -> None:
    """Check before training that the columns in the settings exist.

    Raises:
        ConfigError: a segment is not a feature, or the name of a rule differs from a feature by one character. A rule
            with any other name can be for a business key, which the schema does not contain.
    """
    for error in find_unknown_monitored_columns(settings, schema):
        if not isinstance(error, UnknownKeyError):
            raise error


class UnknownKeyError(ConfigError):
    """The rule's name is not a feature, but it can be a business key."""


def find_unknown_monitored_columns(settings: Monitor, schema: Schema) -> list[ConfigError]:
    """Warnings about the columns in the settings; empty for features that are not a table."""
    if schema.kind != "table":
        return []
    names = schema.names
    errors: list[ConfigError] = []
    for name in settings.columns:
        if name in names or name.startswith(LOG_PREFIXES):
            continue
        similar = next((other for other in names if _is_misspelled_monitored_name(name, other)), None)
        if similar is not None:
            errors.append(
                _describe_unknown_name(
                    f"columns.{name}", f"'{name}' is not a feature. Did you mean '{similar}'?", names
                )
            )
        else:
            problem = f"mlapp.yaml: monitor.columns.{name}: no feature is called '{name}'."
            errors.append(UnknownKeyError(problem, "The rule applies only to business keys with that name."))
    for name in settings.segments:
        if name not in names and not name.startswith(LOG_PREFIXES):
            errors.append(
                _describe_unknown_name("segment", f"'{name}' is not a feature.{suggest_nearest(name, names)}", names)
            )
    return errors


def _is_misspelled_monitored_name(name: str, other: str) -> bool:
    """Whether two names differ by one character, or by two swapped characters."""
    name, other = name.casefold(), other.casefold()
    for _ in range(2):  # without the common prefix, then without the common suffix
        same = next(
            (at for at, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other))
        )
        name, other = name[same:][::-1], other[same:][::-1]
    return max(len(name), len(other)) <= 1 or (len(name) == 2 and name == other[::-1])


def find_unknown_monitored_metrics(settings: Monitor, metrics: Iterable[str]) -> list[ConfigError]:
    """Errors for metrics in the settings that the evaluator does not return, or with a change of the wrong sign.

    Args:
        metrics: names of the metrics of the split that decides about a version.
    """
    names = list(metrics)
    errors = []
    for name, change in settings.quality.items():
        if name not in names:
            problem = f"the evaluator returns no '{name}'.{suggest_nearest(name, names)}"
            errors.append(_describe_unknown_name(f"quality.{name}", problem, names))
        elif is_metric_improvement(name, change):
            errors.append(
                ConfigError(
                    f"mlapp.yaml: monitor.quality.{name}: {change:g} raises an alarm when {name} gets better.",
                    f"Give the change for the worse: {name}: {-change:g}.",
                )
            )
    better = settings.promote.better if settings.promote is not None else None
    if better is not None and better not in names:
        problem = f"the evaluator returns no '{better}'.{suggest_nearest(better, names)}"
        errors.append(_describe_unknown_name("promote.better", problem, names))
    return errors


def find_idle_monitored_settings(settings: Monitor) -> list[ConfigError]:
    """Warnings about settings that have no effect because another setting is missing."""
    needs_log = [name for name in ("quality", "segment", "retrain") if getattr(settings, name)]
    findings = []
    if needs_log and settings.logs == "off":
        findings.append(("log", f"it is off, so monitor.{needs_log[0]} has no effect.", "sample or all"))
    if settings.retrain is not None and not settings.quality:
        findings.append(("quality", "it has no metric, so monitor.retrain has no effect.", "accuracy: -0.03"))
    if settings.promote is not None and settings.retrain is None:
        findings.append(("retrain", "it is not set, so monitor.promote has no effect.", "{on: quality}"))
    return [
        ConfigError(f"mlapp.yaml: monitor.{name}: {problem}", f"Set monitor.{name}, such as {example}.")
        for name, problem, example in findings
    ]


def _describe_unknown_name(setting: str, problem: str, names: Iterable[str]) -> ConfigError:
    name_list = ", ".join(list(names)[:20]) or "none"
    return ConfigError(f"mlapp.yaml: monitor.{setting}: {problem}", f"Correct it in mlapp.yaml. Known: {name_list}.")
