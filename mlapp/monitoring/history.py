"""Reads the counts of the replicas."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from mlapp.baseline import Baseline, read_baseline
from mlapp.errors import MlappError, StoreError
from mlapp.monitoring.counts import Counts, merge_counts
from mlapp.monitoring.place import Place, Window
from mlapp.store import Store

log = logging.getLogger("mlapp.monitoring")
FORMAT = 1


def read_history_counts(place: Place, *, since: float, until: float, version: str | None = None) -> list[Counts]:
    """The sums of the counts of all replicas, one per version and window with traffic, in order.

    Args:
        since, until: seconds since 1970. Overlapping windows are read.

    Raises:
        StoreError: the place cannot be read, or was written by a newer mlapp.
    """
    found: list[Counts] = []
    for number in place.names("counts"):
        if version is not None and number != version:
            continue
        for name in place.names("counts", number):
            window = Window.parse(name)
            if window is None or window.until <= since or window.since >= until:
                continue
            total = _sum_history_counts(place, number, name)
            if total is not None:
                found.append(total)
    return sorted(found, key=lambda counts: (counts.since, counts.version))


def read_history_baselines(store: Store, app: str, versions: Iterable[str]) -> dict[str, Baseline]:
    """The baselines of versions, without versions that are deleted or have none."""
    found = {}
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
            found[version] = baseline
    return found


def _sum_history_counts(place: Place, version: str, window: str) -> Counts | None:
    newest: dict[str, str] = {}
    for name in place.names("counts", version, window):
        replica, _, number = name.removesuffix(".json").rpartition("-")
        if number.isdecimal():
            newest[replica] = max(newest.get(replica, ""), name)
    contents = place.read_all([place.key("counts", version, window, name) for name in newest.values()])
    where = f"{place!r}/counts/{version}/{window}"
    parts = [_decode_history_counts(content, where) for content in contents]
    for part in parts:
        if (part.version, Window(int(part.since), int(part.until - part.since)).name) != (version, window):
            raise _make_history_counts_error(where, "its content belongs to another version or window")
    try:
        return merge_counts(parts)
    except ValueError:
        raise _make_history_counts_error(where, "two replicas counted into different bins") from None


def _decode_history_counts(content: bytes, where: str) -> Counts:
    try:
        found = msgspec.json.decode(content, type=Counts)
    except msgspec.MsgspecError as error:
        raise _make_history_counts_error(where, str(error).rstrip(".")) from None
    if found.format > FORMAT:
        raise StoreError(
            f"{where} has format {found.format}; this mlapp reads formats up to {FORMAT}.", "Update mlapp."
        )
    return found


def _make_history_counts_error(where: str, why: str) -> StoreError:
    return StoreError(f"{where} cannot be read: {why}.", "Update mlapp, or delete that folder.")
