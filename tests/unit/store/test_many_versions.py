"""A bucket with thousands of versions: the newest are found without a list of all."""

from __future__ import annotations

from itertools import islice

import obstore
import pytest
from obstore.store import MemoryStore

from mlapp.store.json_documents import JsonDocuments
from mlapp.store.manifests import Manifests
from mlapp.store.numbered_names import PAGE, find_numbered_names_start
from mlapp.store.object_storage import ObjectStorage


def open_manifests(tmp_path, versions, deleted=()):
    client = MemoryStore()
    for number in versions:
        obstore.put(client, f"digits/versions/{number:06}.json", b"{}")
    for number in deleted:
        obstore.put(client, f"digits/deleted/{number:06}.json", b"{}")
    storage = ObjectStorage(client, "s3://bucket", tmp_path)
    return Manifests(storage, JsonDocuments(storage))


CASES = {
    "none": ([], []),
    "few": (range(1, 11), [10]),
    "a full page": (range(1, PAGE + 1), []),
    "many": (range(1, 4001), [17, 3999]),
    "only old ones are left": (range(1, 2501), range(30, 2501)),
    "some were removed by hand": ([*range(1, 1201), *range(2900, 3100)], [3099]),
}


@pytest.mark.parametrize(("versions", "deleted"), CASES.values(), ids=CASES)
def test_the_newest_versions_are_the_last_of_all(tmp_path, versions, deleted):
    manifests = open_manifests(tmp_path, versions, deleted)
    expected = sorted(set(versions) - set(deleted), reverse=True)
    assert manifests.list_numbers("digits") == expected[::-1]
    assert list(islice(manifests.iterate_newest("digits"), 60)) == expected[:60]
    assert list(manifests.iterate_newest("digits")) == expected
    for number in (1, 30, 3099, 10**30):
        assert manifests.has_version("digits", number) == (number in expected)


@pytest.mark.parametrize("last", [1_000, 1_001, 8_192, 300_000, 990_000, 999_999])
def test_few_lookups_find_the_last_version(last):
    rounds = []

    def have(names):
        rounds.append(names)
        return [int(name[:6]) <= last for name in names]

    start = find_numbered_names_start([f"{number:06}.json" for number in range(1, PAGE + 1)], 50, have)
    if last + PAGE < 999_999:
        assert start is not None
        assert last - PAGE - 50 <= int(start[:6]) <= last - 50
    else:  # longer numbers do not sort by their value
        assert start is None
    assert len(rounds) <= 6
