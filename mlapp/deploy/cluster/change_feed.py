"""Changes of several kinds of object as one stream, from watches of the API server."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from mlapp.deploy.cluster.api_client import Cluster, Watch
from mlapp.deploy.cluster.object_kinds import Kind
from mlapp.deploy.target import DeployError

LISTED = "LISTED"
"""Pseudo-event with all objects of a kind, unlike the events of a watch."""


class ChangeFeed:
    """Several watches as one stream: first a list, then the changes. A watch that ends is restarted.

    On exit the watches are closed, so that none stays open at the API server until its timeout.
    """

    def __init__(self, cluster: Cluster, timeout: float) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._changes: queue.Queue[tuple[Kind, str, dict[str, Any]] | DeployError] = queue.Queue()
        self._ended = threading.Event()
        self._watches: set[Watch] = set()

    def __enter__(self) -> ChangeFeed:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for watch in list(self._watches):
            watch.stop()

    def add_watch(self, kind: Kind, **query: str) -> None:
        """Watch a kind in a separate thread."""
        threading.Thread(target=self._feed_kind_changes, args=(kind, query), daemon=True).start()

    def next_change(self, seconds: float) -> tuple[Kind, str, dict[str, Any]] | None:
        """The next change, or None if there is none within `seconds`.

        Raises:
            DeployError: the API server refused a watch.
        """
        try:
            change = self._changes.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return None
        if isinstance(change, DeployError):
            raise change
        return change

    def _feed_kind_changes(self, kind: Kind, query: dict[str, str]) -> None:
        from urllib3.exceptions import HTTPError

        while not self._ended.is_set():
            try:
                items, version = self._cluster.list_with_version(kind, **query)
                self._changes.put((kind, LISTED, {"items": items}))
                with self._cluster.watch_objects(kind, version, self._timeout, **query) as watch:
                    self._watches.add(watch)
                    try:
                        self._feed_watch_changes(kind, watch)
                    finally:
                        self._watches.discard(watch)
            except DeployError as error:
                self._changes.put(error)
                return
            except (HTTPError, OSError, ValueError):
                pass  # the connection broke: restart the watch
            time.sleep(0.2)

    def _feed_watch_changes(self, kind: Kind, watch: Watch) -> None:
        if self._ended.is_set():  # `__exit__` ran before the watch was registered
            return
        for action, item in watch:
            self._changes.put((kind, action, item))
