"""Checks that the columns and metrics that `monitor:` of mlapp.yaml names exist."""

from __future__ import annotations

from collections.abc import Iterable

from mlapp.config import Monitor
from mlapp.errors import ConfigError, suggest_nearest
from mlapp.frameworks.metrics import is_metric_improvement
from mlapp.schema import Schema

OTHERS = ("prediction", "key.", "feature.")
"""Prefixes of the log's columns that are not features."""


def check_monitored_columns(settings: Monitor, schema: Schema) -> None:
    """Check before training that the columns in the settings exist.

    Raises:
        ConfigError: a segment that is no feature, or a rule whose name is a feature's but for one character. A rule of
            any other name can be a business key, which the schema does not contain.
    """
    for error in find_unknown_monitored_columns(settings, schema):
        if not isinstance(error, UnknownKeyError):
            raise error


class UnknownKeyError(ConfigError):
    """A rule for a name that can be a business key."""


def find_unknown_monitored_columns(settings: Monitor, schema: Schema) -> list[ConfigError]:
    """Warnings about the columns in the settings; empty for features that are not a table."""
    if schema.kind != "table":
        return []
    names = schema.names
    found: list[ConfigError] = []
    for name in settings.columns:
        if name in names or name.startswith(OTHERS):
            continue
        meant = next((other for other in names if _is_misspelled_monitored_name(name, other)), None)
        if meant is not None:
            found.append(
                _describe_unknown_name(f"columns.{name}", f"'{name}' is not a feature. Did you mean '{meant}'?", names)
            )
        else:
            what = f"mlapp.yaml: monitor.columns.{name}: no feature is called '{name}'."
            found.append(UnknownKeyError(what, "The rule applies only to business keys with that name."))
    for name in settings.segments:
        if name not in names and not name.startswith(OTHERS):
            found.append(
                _describe_unknown_name("segment", f"'{name}' is not a feature.{suggest_nearest(name, names)}", names)
            )
    return found


def _is_misspelled_monitored_name(given: str, known: str) -> bool:
    """Whether two names differ by one character, or by two swapped characters."""
    given, known = given.casefold(), known.casefold()
    for _ in range(2):  # without the common prefix, then without the common suffix
        same = next(
            (at for at, (a, b) in enumerate(zip(given, known, strict=False)) if a != b), min(len(given), len(known))
        )
        given, known = given[same:][::-1], known[same:][::-1]
    return max(len(given), len(known)) <= 1 or (len(given) == 2 and given == known[::-1])


def find_unknown_monitored_metrics(settings: Monitor, metrics: Iterable[str]) -> list[ConfigError]:
    """The metrics in the settings that no evaluator returned, or whose allowed change has the wrong sign.

    Args:
        metrics: of the split that decides about a version.
    """
    names = list(metrics)
    found = []
    for name, change in settings.quality.items():
        if name not in names:
            what = f"the evaluator returns no '{name}'.{suggest_nearest(name, names)}"
            found.append(_describe_unknown_name(f"quality.{name}", what, names))
        elif is_metric_improvement(name, change):
            found.append(
                ConfigError(
                    f"mlapp.yaml: monitor.quality.{name}: {change:g} raises an alarm when {name} gets better.",
                    f"Give the change for the worse: {name}: {-change:g}.",
                )
            )
    better = settings.promote.better if settings.promote is not None else None
    if better is not None and better not in names:
        what = f"the evaluator returns no '{better}'.{suggest_nearest(better, names)}"
        found.append(_describe_unknown_name("promote.better", what, names))
    return found


def find_idle_monitored_settings(settings: Monitor) -> list[ConfigError]:
    """Warnings about settings that have no effect, because another one is missing."""
    needs_log = [name for name in ("quality", "segment", "retrain") if getattr(settings, name)]
    found = []
    if needs_log and settings.logs == "off":
        found.append(("log", f"it is off, so monitor.{needs_log[0]} has no effect.", "sample or all"))
    if settings.retrain is not None and not settings.quality:
        found.append(("quality", "no metric is given, so monitor.retrain has no effect.", "accuracy: -0.03"))
    if settings.promote is not None and settings.retrain is None:
        found.append(("retrain", "nothing is trained again, so monitor.promote has no effect.", "{on: quality}"))
    return [
        ConfigError(f"mlapp.yaml: monitor.{name}: {what}", f"Set monitor.{name}, such as {example}.")
        for name, what, example in found
    ]


def _describe_unknown_name(setting: str, what: str, known: Iterable[str]) -> ConfigError:
    listed = ", ".join(list(known)[:20]) or "none"
    return ConfigError(f"mlapp.yaml: monitor.{setting}: {what}", f"Correct it in mlapp.yaml. Known: {listed}.")
