"""The place of counts, log, truths and reports: next to the model store, or at `monitor.url`.

<app>/monitor/counts/<version>/<window>/<replica>-<number>.json      counts of one replica; the highest number counts
<app>/monitor/log/<version>/<hour>/<replica>-<first>-<last>.parquet  rows that were logged; one range may hold others
<app>/monitor/truth/<day>/<time>-<id>.parquet                        truths, as they became known
<app>/monitor/windows/<window>/<version>.json                        the report of a closed window
<app>/monitor/alarms/<name>/<number>.json                            the start and the end of each alarm
<app>/monitor/deliveries/<delivery>/…                                messages that a webhook has not received
<app>/monitor/retrain/<number>.…                                     trainings that monitoring has started

A window is `<since>-<seconds>`, both in seconds. Every object is written once and never changed.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mlapp.config import Monitor
from mlapp.data.secrets import expand_secrets_in_address
from mlapp.errors import ConfigError, DataError, MissingExtraError, StoreError
from mlapp.store import Store, open_store

if TYPE_CHECKING:
    from mlapp.store.storage import Storage

T = TypeVar("T")
HOUR, DAY, WEEK = 3600, 86_400, 604_800
"""Seconds. The log has a folder for each hour."""
UNITS = {"s": 1, "m": 60, "h": HOUR, "d": DAY}
SIZES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, order=True)
class Window:
    """A time interval, in seconds since 1970 (UTC)."""

    since: int
    seconds: int

    @property
    def until(self) -> int:
        """The first second after it."""
        return self.since + self.seconds

    @property
    def name(self) -> str:
        """The window as a part of a key."""
        return f"{self.since}-{self.seconds}"

    @classmethod
    def of(cls, time: float, seconds: int) -> Window:
        """The window that contains a time. Windows start at multiples of their length."""
        return cls(int(time // seconds) * seconds, seconds)

    @classmethod
    def parse(cls, name: str) -> Window | None:
        """The window from a part of a key."""
        match = re.fullmatch(r"(\d{1,11})-([1-9]\d{0,10})", name, re.ASCII)
        return cls(int(match[1]), int(match[2])) if match else None


class Place:
    """The monitoring data of one app.

    Raises:
        StoreError: raised by every method if the place cannot be reached.
    """

    def __init__(self, storage: Storage, app: str) -> None:
        self.storage = storage
        self.app = app
        self.root = f"{app}/monitor"

    def key(self, *parts: object) -> str:
        """A key below the app's prefix."""
        return "/".join((self.root, *map(str, parts)))

    def names(self, *parts: object) -> list[str]:
        """The names directly below a prefix, sorted."""
        return sorted(self.storage.list_names(self.key(*parts)))

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        """The contents of those keys that still exist."""
        return [content for content in self.storage.read_keys(keys) if content is not None]

    def read_document(self, key: str, kind: type[T]) -> T | None:
        """The content of a JSON object, or None if there is none.

        Raises:
            StoreError: it is damaged.
        """
        content = self.storage.read_key(key)
        try:
            return None if content is None else msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{key} in {self.storage!r} cannot be read: {error}.", "Delete this file.") from None

    def folder(self) -> Path | None:
        """The local folder, or None if the place is not a folder."""
        root = getattr(self.storage, "root", None)
        return None if root is None else Path(root) / self.root

    def __repr__(self) -> str:
        return f"{self.storage!r}/{self.root}"


def open_place(settings: Monitor, store: Store, root: Path, app: str) -> Place:
    """The place that the settings name.

    Args:
        store: the model store; without `monitor.url`, the location is next to it.
        root: the project's folder.

    Raises:
        ConfigError: an unsupported URL. MissingExtraError: the package for it is not installed.
    """
    if settings.url is None:
        return Place(store.storage, app)
    try:
        return Place(open_store(expand_secrets_in_address(settings.url).value, root, "monitor.url").storage, app)
    except (ConfigError, StoreError) as error:
        raise ConfigError(f"mlapp.yaml: {error.what}", error.todo) from None


def check_place(settings: Monitor, store: Store, root: Path, app: str) -> None:
    """Check the setting `monitor.url` where it is not used, without a request.

    Raises:
        ConfigError: an unsupported URL, or a file in the folder's place.
    """
    with suppress(DataError, MissingExtraError):  # this process needs neither the URL's variable nor its package
        open_place(settings, store, root, app)


def make_replica_name() -> str:
    """A unique name for this process."""
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32]
    return f"{host or 'host'}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def parse_seconds(text: str) -> int:
    """`1h` in seconds."""
    return int(text[:-1]) * UNITS[text[-1]]


def parse_rate(text: str) -> float:
    """`10/s` as rows per second."""
    rows, _, unit = text.partition("/")
    return float(rows) / UNITS[unit]


def parse_bytes(text: str) -> int:
    """`2GB` in bytes."""
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]+)", text)
    assert match is not None
    return int(float(match[1]) * SIZES[match[2]])
