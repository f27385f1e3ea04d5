"""Log lines of all pods as one stream. While followed, the stream includes later pods."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import POD
from mlapp.deploy.cluster.transport import read_transport_lines
from mlapp.deploy.target import DeployError, LogLine

REFRESH_INTERVAL = 2.0
"""Interval in seconds for finding new pods."""
UNSTARTED_PHASES = frozenset({"Pending", "Unknown"})


def stream_pod_logs(
    cluster: Cluster,
    names: Names,
    follow: bool,
    tail: int | None,
    since: float | None,
    container: str = labels.CONTAINER,
    selector: str | None = None,
) -> Iterator[LogLine]:
    """The lines, in order within each pod. Without `follow`, one pod after the other.

    `selector` selects the pods, by default all pods of the app.

    Raises:
        DeployError: the app has no pods, or the server refuses.
    """
    query = {"container": container, "timestamps": "true"}
    if tail is not None:
        query["tailLines"] = str(tail)
    if since is not None:
        query["sinceSeconds"] = str(max(1, int(since)))
    pod_selector = selector or f"{labels.NAME}={names.base},{labels.APP}={names.base}"
    phases = _list_pods_with_logs(cluster, pod_selector)
    if not phases and not follow:
        raise DeployError(f"{names.app} has no pods in {cluster.place}.", "Look at `mlapp status`.")
    if follow:
        yield from _follow_pod_logs(cluster, pod_selector, query)
        return
    for pod in sorted(phases):
        with suppress(_NotStartedError):
            yield from (line for _, line in _read_pod_log_lines(cluster, pod, query))


def _list_pods_with_logs(cluster: Cluster, selector: str) -> dict[str, str]:
    """The phase of each started pod."""
    pods = cluster.list_objects(POD, selector)
    phases = {pod["metadata"]["name"]: pod.get("status", {}).get("phase") for pod in pods}
    return {pod: phase for pod, phase in phases.items() if phase not in UNSTARTED_PHASES}


class _NotStartedError(Exception):
    pass


def _read_pod_log_lines(cluster: Cluster, pod: str, query: dict[str, str]) -> Iterator[tuple[str, LogLine]]:
    """The lines, each with the kubelet's timestamp. All have nine decimals of a second, so they compare as text."""
    from mlapp.deploy.cluster.api_errors import ApiError

    try:
        response = cluster.read_pod_log(pod, **query)
    except ApiError as error:
        if error.code in (400, 404):  # its container has not started, or no longer exists
            raise _NotStartedError from None
        raise
    for line in read_transport_lines(response):
        stamp, _, text = line.decode(errors="replace").partition(" ")
        yield stamp, LogLine(pod, text, _parse_log_stamp(stamp))


def _parse_log_stamp(stamp: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{stamp[:19]}+00:00")
    except ValueError:
        return None


def _follow_pod_logs(cluster: Cluster, selector: str, query: dict[str, str]) -> Iterator[LogLine]:
    lines: queue.Queue[LogLine | DeployError] = queue.Queue(10_000)
    known_pods: set[str] = set()
    ended_pods: set[str] = set()
    last_stamps: dict[str, str] = {}

    def follow_pod(pod: str, pod_query: dict[str, str]) -> None:
        from urllib3.exceptions import HTTPError

        last_stamp = last_stamps.get(pod, "")
        try:
            for stamp, line in _read_pod_log_lines(cluster, pod, {**pod_query, "follow": "true"}):
                if stamp > last_stamp:
                    lines.put(line)
                    last_stamps[pod] = stamp
        except DeployError as error:
            lines.put(error)
        except (_NotStartedError, HTTPError, OSError):
            pass
        ended_pods.add(pod)

    resume_query = {key: value for key, value in query.items() if key not in ("tailLines", "sinceSeconds")}
    is_first_round = True
    while True:
        for pod, phase in _list_pods_with_logs(cluster, selector).items():
            # The stream of a running pod ended: it was cut off, or the container restarted. Continue after its
            # last line.
            if pod not in known_pods or (pod in ended_pods and phase == "Running"):
                since = {"sinceTime": last_stamps[pod]} if pod in last_stamps else {}
                pod_query = query if is_first_round else {**resume_query, **since}
                known_pods.add(pod)
                ended_pods.discard(pod)
                threading.Thread(target=follow_pod, args=(pod, pod_query), daemon=True).start()
        is_first_round = False
        yield from _iterate_log_lines_until_refresh(lines)


def _iterate_log_lines_until_refresh(lines: queue.Queue[LogLine | DeployError]) -> Iterator[LogLine]:
    """Lines until the next search for new pods. Stops by time, because under load the queue is never empty."""
    end = time.monotonic() + REFRESH_INTERVAL
    while (remaining := end - time.monotonic()) > 0:
        try:
            item = lines.get(timeout=remaining)
        except queue.Empty:
            return
        if isinstance(item, DeployError):
            raise item
        yield item
