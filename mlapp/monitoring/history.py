"""Reads the counts of all replicas from the place of monitoring data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from mlapp import distribution
from mlapp.baseline import Baseline, read_baseline
from mlapp.config import Monitor
from mlapp.errors import MlappError, StoreError
from mlapp.monitoring.count_files import FalseCountsError, FutureFormatError, decode_counts
from mlapp.monitoring.counts import Counts, merge_counts
from mlapp.monitoring.place import HOUR, WEEK, Place, Window
from mlapp.store import Store

log = logging.getLogger("mlapp.monitoring")
WEEKS = 4
"""Number of earlier weeks that a window is compared with."""


def list_history_windows(
    place: Place, *, since: float, until: float, version: str | None = None
) -> list[tuple[str, Window]]:
    """The versions and windows with traffic, in order of time.

    Args:
        since, until: seconds since 1970. Overlapping windows are listed.

    Raises:
        StoreError: the place cannot be read.
    """
    windows = [
        (number, window)
        for number in place.names("counts")
        if version is None or number == version
        for window in map(Window.parse, place.names("counts", number))
        if window is not None and window.until > since and window.since < until
    ]
    return sorted(windows, key=lambda pair: (pair[1].since, pair[0]))


def read_seasonal_counts(
    place: Place, settings: Monitor, windows: Sequence[tuple[str, Window]], baselines: Mapping[str, Baseline]
) -> list[Counts]:
    """The counts of the same versions, weekdays and hours in earlier weeks; empty without `drift.seasonal`.

    Args:
        windows: in order of time.

    Raises:
        StoreError: the place cannot be read.
    """
    if settings.tests is None or not settings.tests.seasonal or not windows:
        return []
    seasons = {(version, *find_season(window.since)) for version, window in windows}
    first, last = windows[0][1].since, windows[-1][1].since
    earlier_windows = list_history_windows(place, since=first - WEEKS * WEEK, until=last - WEEK + HOUR)
    seasonal_windows = [
        (version, window) for version, window in earlier_windows if (version, *find_season(window.since)) in seasons
    ]
    return read_history_counts(place, seasonal_windows, baselines)


def find_season(since: float) -> tuple[int, int]:
    """The weekday and the hour (UTC) of a time."""
    at = datetime.fromtimestamp(since, timezone.utc)
    return at.weekday(), at.hour


def read_history_counts(
    place: Place, windows: Iterable[tuple[str, Window]], baselines: Mapping[str, Baseline]
) -> list[Counts]:
    """The sums of the counts of all replicas, one per version and window.

    A file with impossible counts is reported in the log and left out.

    Args:
        baselines: version → its baseline.

    Raises:
        StoreError: the place cannot be read, or was written by a newer mlapp.
    """
    totals = [_sum_history_counts(place, version, window, baselines.get(version)) for version, window in windows]
    return [total for total in totals if total is not None]


def read_history_baselines(store: Store, app: str, versions: Iterable[str]) -> dict[str, Baseline]:
    """The baselines by version. Versions that are deleted or have no baseline are left out."""
    baselines = {}
    for version in set(versions):
        if not version.isdecimal():
            continue
        try:
            baseline = read_baseline(store.get(app, version).files)
        except StoreError as error:
            log.warning("Version %s is not compared with its training data: %s", version, error.what)
            continue
        except MlappError:  # the version is deleted
            continue
        if baseline is not None:
            baselines[version] = baseline
    return baselines


def _sum_history_counts(place: Place, version: str, window: Window, baseline: Baseline | None) -> Counts | None:
    newest: dict[str, str] = {}
    for name in place.names("counts", version, window.name):
        replica, _, number = name.removesuffix(".json").rpartition("-")
        if number.isdecimal():
            newest[replica] = max(newest.get(replica, ""), name)
    keys = [place.key("counts", version, window.name, name) for name in newest.values()]
    total: Counts | None = None
    for key, content in zip(keys, place.storage.read_keys(keys), strict=True):
        if content is None:  # the replica has replaced it meanwhile
            continue
        try:
            total = _add_history_counts(total, decode_counts(content, version, window, baseline))
        except FalseCountsError as error:
            log.warning("%s in %r is left out: %s. Delete this file.", key, place.storage, error)
        except FutureFormatError as error:
            raise StoreError(
                f"{key} in {place.storage!r} {error}.", f"Upgrade: pip install --upgrade {distribution.NAME}."
            ) from None
    return total


def _add_history_counts(total: Counts | None, part: Counts) -> Counts | None:
    try:
        return part if total is None else merge_counts([total, part])
    except ValueError:  # without a baseline, it is unknown which of them is right
        raise FalseCountsError("it has other bins than another replica") from None
