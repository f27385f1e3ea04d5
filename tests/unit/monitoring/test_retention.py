"""A run deletes what is too old or too large, with few requests."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mlapp.config import Monitor
from mlapp.monitoring.place import DAY, HOUR, Place
from mlapp.monitoring.retention import remove_expired_files
from mlapp.store.folder_storage import FolderStorage

NOW = 1_800_000_000.0


class CountedListings(FolderStorage):
    """A bucket that counts its listings."""

    listings = 0

    def list_names(self, prefix: str) -> Any:
        self.listings += 1
        return super().list_names(prefix)

    def measure_prefix(self, prefix: str) -> int:
        self.listings += 1
        return super().measure_prefix(prefix)


def store_log(root: Path, hours: int) -> Place:
    """Hours of a log, 1 kB each."""
    place = Place(CountedListings(root), "app")
    for at in range(hours):
        hour = datetime.fromtimestamp(NOW - at * HOUR, timezone.utc).strftime("%Y-%m-%dT%H")
        place.storage.create_key(place.key("log/1", hour, "r-000000001-000000001.parquet"), bytes(1000))
    return place


@pytest.mark.parametrize("hours", [10, 100])
def test_the_listings_of_a_run_do_not_depend_on_the_hours_that_are_kept(hours: int, tmp_path: Path) -> None:
    place = store_log(tmp_path, hours)
    remove_expired_files(place, Monitor(), NOW)
    assert isinstance(place.storage, CountedListings)
    assert place.storage.listings == 7
    assert len(place.names("log/1")) == hours


def test_the_oldest_hours_of_a_log_that_is_too_large_are_deleted(tmp_path: Path) -> None:
    place = store_log(tmp_path, 50)
    remove_expired_files(place, Monitor(max_size="20kB", keep="1d"), NOW + DAY / 2)
    names = place.names("log/1")
    assert len(names) <= 14
    remove_expired_files(place, Monitor(max_size="5kB"), NOW)
    assert place.names("log/1") == names[-5:]
