"""Lines of all pods as one stream; while it is followed, pods that come later join in."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from mlapp.deploy.k8s import labels
from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.kinds import POD
from mlapp.deploy.k8s.naming import Names
from mlapp.deploy.k8s.transport import lines
from mlapp.deploy.target import DeployError, LogLine

LOOK_AGAIN = 2.0
"""Seconds between looks for new pods."""
BEGINNING = frozenset({"Pending", "Unknown"})


def logs(cluster: Cluster, names: Names, follow: bool, tail: int | None, since: float | None) -> Iterator[LogLine]:
    """The lines; each pod's in order. Without `follow`, one pod after the other.

    Raises:
        DeployError: the app has no pods, or the server refuses.
    """
    query = {"container": labels.CONTAINER, "timestamps": "true"}
    if tail is not None:
        query["tailLines"] = str(tail)
    if since is not None:
        query["sinceSeconds"] = str(max(1, int(since)))
    found = _pods(cluster, names)
    if not found and not follow:
        raise DeployError(f"{names.app} has no pods in {cluster.place}.", "Look at `mlapp status`.")
    if follow:
        yield from _followed(cluster, names, query)
        return
    for pod in found:
        with suppress(_NotStartedError):
            yield from _of_pod(cluster, pod, query)


def _pods(cluster: Cluster, names: Names) -> list[str]:
    selector = f"{labels.NAME}={names.base},{labels.APP}={names.base}"
    pods = cluster.list(POD, selector)
    started = [pod for pod in pods if pod.get("status", {}).get("phase") not in BEGINNING]
    return sorted(pod["metadata"]["name"] for pod in started)


class _NotStartedError(Exception):
    pass


def _of_pod(cluster: Cluster, pod: str, query: dict[str, str]) -> Iterator[LogLine]:
    from mlapp.deploy.k8s.refusal import ApiError

    try:
        response = cluster.log(pod, **query)
    except ApiError as error:
        if error.code in (400, 404):  # its container has not begun, or is gone
            raise _NotStartedError from None
        raise
    for line in lines(response):
        stamp, _, text = line.decode(errors="replace").partition(" ")
        yield LogLine(pod, text, _time(stamp))


def _time(stamp: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{stamp[:19]}+00:00")
    except ValueError:
        return None


def _followed(cluster: Cluster, names: Names, query: dict[str, str]) -> Iterator[LogLine]:
    came: queue.Queue[LogLine | DeployError] = queue.Queue(10_000)
    followed: set[str] = set()
    ended: set[str] = set()

    def follow(pod: str, how: dict[str, str]) -> None:
        from urllib3.exceptions import HTTPError

        try:
            for line in _of_pod(cluster, pod, {**how, "follow": "true"}):
                came.put(line)
        except DeployError as error:
            came.put(error)
        except (_NotStartedError, HTTPError, OSError):
            pass
        ended.add(pod)

    later = {key: value for key, value in query.items() if key not in ("tailLines", "sinceSeconds")}
    first = True
    while True:
        now = _pods(cluster, names)
        for pod in now:
            if pod not in followed or pod in ended:
                # One that ended and is there still was cut off, or its container began anew: go on from now.
                how = query if first else later if pod not in followed else {**later, "sinceSeconds": "1"}
                followed.add(pod)
                ended.discard(pod)
                threading.Thread(target=follow, args=(pod, how), daemon=True).start()
        first = False
        yield from _until_quiet(came)


def _until_quiet(came: queue.Queue[LogLine | DeployError]) -> Iterator[LogLine]:
    while True:
        try:
            item = came.get(timeout=LOOK_AGAIN)
        except queue.Empty:
            return
        if isinstance(item, DeployError):
            raise item
        yield item
