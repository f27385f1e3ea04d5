"""Damaged and full stores are recognized, tolerated and repaired."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from mlapp import App
from mlapp.errors import StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.store import Store, open_store
from mlapp.store.folder_storage import FolderStorage
from tests.mounts import mount


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    app = App("numbers", target="y")
    x = np.linspace(-1, 1, 40)
    app.data_reader(lambda: pd.DataFrame({"x": x, "y": (x > 0).astype(int)}))
    app.model(LogisticRegression)
    return app.train()


@pytest.fixture
def full_store(tmp_path: Path, trained: TrainedModel) -> Iterator[Store]:
    """A store of three versions on a disk on which nothing more can be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mount(disk, "-t", "tmpfs", "-o", "size=192k,nr_inodes=1000", "tmpfs"):
        store = open_store("models", disk)
        for _ in range(3):
            store.put(trained)
        fill(disk)
        yield store


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 512)
            except OSError:
                return


def test_a_full_disk_allows_moving_an_alias_and_deleting_versions(full_store: Store, trained: TrainedModel) -> None:
    with pytest.raises(StoreError, match="No space left on device") as raised:
        full_store.put(trained)
    assert "mlapp models prune" in raised.value.todo
    full_store.promote("numbers", 3, "production")
    full_store.delete("numbers", 1)
    full_store.delete("numbers", 2)
    assert (full_store.list_numbers("numbers"), full_store.aliases("numbers")) == ([3], {"production": 3})
    Path(repr(full_store.storage)).with_name("filler").unlink()
    assert full_store.put(trained).version == 4


def test_a_full_disk_without_a_reserve_allows_deleting_versions(full_store: Store) -> None:
    """A store that an earlier mlapp wrote has no reserve, and another writer may have taken it."""
    root = Path(repr(full_store.storage))
    (root / ".reserve").unlink()
    fill(root.parent)
    full_store.delete("numbers", 1)
    assert full_store.list_numbers("numbers") == [2, 3]


@pytest.fixture
def store(tmp_path: Path, trained: TrainedModel) -> Store:
    store = open_store("models", tmp_path)
    for _ in range(2):
        store.put(trained)
    store.promote("numbers", 1, "production")
    store.promote("numbers", 2, "staging")
    return store


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_format_is_an_error_that_says_what_to_write(content: bytes, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "models" / "store.json"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"store.json of the model store .* is damaged") as raised:
        store.list_numbers("numbers")
    assert '{"format": 1}' in raised.value.todo
    file.write_text('{"format": 1}')
    assert store.list_numbers("numbers") == [1, 2]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "x", "moved": 1}', b"[" * 100_000])
def test_a_damaged_alias_breaks_nothing_else_and_is_repaired_by_moving_it(
    content: bytes, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "models/numbers/aliases/production/000001.json").write_bytes(content)
    damaged: list[StoreError] = []
    assert store.aliases("numbers", damaged) == {"staging": 2}
    assert "aliases/production" in damaged[0].what
    assert "mlapp models promote" in damaged[0].todo
    assert store.get("numbers", "staging").version == 2
    with pytest.raises(StoreError, match="aliases/production"):
        store.delete("numbers", 1)  # it may be what the alias points at
    store.promote("numbers", 1, "production")
    assert store.aliases("numbers") == {"production": 1, "staging": 2}


def test_one_damaged_document_does_not_break_the_list(project: Callable[..., Path], mlapp: Any) -> None:
    root = project()
    for _ in range(3):
        assert mlapp("train").code == 0
    for alias in ("good", "bad"):
        assert mlapp("models", "promote", "3", alias).code == 0
    store = root / ".mlapp/store/flowers"
    (store / "aliases/bad/000001.json").write_bytes(b"{")
    (store / "versions/000002.json").write_bytes(b"{")
    output = mlapp("models", "list")
    assert output.code == 0
    assert [line.split()[0] for line in output.out.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"])] == [
        "1",
        "3",
    ]
    assert "good" in output.out
    assert "aliases/bad/000001.json" in output.err
    assert "versions/000002.json" in output.err


def test_versions_that_two_delete_at_once_are_deleted_once(store: Store, trained: TrainedModel, tmp_path: Path) -> None:
    for _ in range(6):
        store.put(trained)
    ready, messages, unexpected = threading.Barrier(4), [], []

    def prune() -> None:
        own = open_store("models", tmp_path)
        going = own.list_expendable("numbers", 2)
        ready.wait()
        for version in going:
            try:
                own.delete("numbers", version.version)
                messages.append(version.version)
            except UsageError:
                pass
            except Exception as error:
                unexpected.append(error)

    threads = [threading.Thread(target=prune) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    assert sorted(messages) == [3, 4, 5, 6]
    assert store.list_numbers("numbers") == [1, 2, 7, 8]
    assert len(list((tmp_path / "models/numbers/files").iterdir())) == 4


def test_a_folder_without_permission_is_reported_as_such(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied", "models")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="Permission denied") as raised:
        store.promote("numbers", 1, "other")
    assert "permissions" in raised.value.todo


def test_a_key_is_created_though_its_folder_is_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that sends an alarm claims it in a folder that another one, which has sent it, is deleting."""
    storage, link, deleted = FolderStorage(tmp_path), os.link, []

    def delete_first(source: Any, target: Any) -> None:
        if len(deleted) < 2:
            deleted.append(storage.delete_prefix("app/claims"))
        link(source, target)

    monkeypatch.setattr(os, "link", delete_first)
    assert storage.create_key("app/claims/1.json", b"{}")
    assert len(deleted) == 2
    assert storage.read_key("app/claims/1.json") == b"{}"
    assert not storage.create_key("app/claims/1.json", b"other")


def test_a_key_in_a_known_folder_costs_few_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of them the thread that logs predictions takes turns with the requests."""
    storage, calls = FolderStorage(tmp_path), []
    for name in ("stat", "lstat", "mkdir", "open", "writev", "write", "fsync", "close", "link", "unlink", "listdir"):
        function = getattr(os, name)

        def call(*args: Any, name: str = name, function: Any = function, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        monkeypatch.setattr(os, name, call)
    for number in range(3):
        calls.clear()
        assert storage.create_key(f"app/log/{number}", [b"some ", b"rows"])
    file, folder = ["open", "writev", "fsync", "close", "link", "unlink"], ["open", "fsync", "close"]
    assert calls == ["stat", *file, *folder]
    assert storage.read_key("app/log/2") == b"some rows"
