"""Wait for Seldon's objects by their conditions.

Core 2 does not report which generation a condition refers to. A condition that was True at the start of the wait counts
as current once it has changed, or after a delay in which Seldon's scheduler would have started to apply a change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mlapp.deploy.cluster.deploy_lock import DeployLock
from mlapp.deploy.cluster.deploy_session import DeploySession
from mlapp.deploy.cluster.object_kinds import find_object_kind, object_title
from mlapp.deploy.cluster.rollout import RolloutError

SETTLED = 5.0
"""Seconds after which an unchanged condition counts as current."""
FAILED_FOR = 15.0
"""Seconds to tolerate a model that is reported as failed: Seldon retries, also on other Servers."""
PAUSE = 0.5


def wait_for_seldon_objects(job: DeploySession[Any], documents: Sequence[dict[str, Any]], timeout: float) -> None:
    """Return when each object's `Ready` is True.

    Raises:
        RolloutError: an object does not become ready; includes Seldon's message.
    """
    begun = time.monotonic()
    open_documents = list(documents)
    changed: set[str] = set()
    told: dict[str, str] = {}
    failed: dict[str, float] = {}
    lock: DeployLock = job.lock
    while open_documents:
        lock.check_held()
        for document in list(open_documents):
            title = object_title(document)
            item = job.cluster.get_object(find_object_kind(document), document["metadata"]["name"]) or {}
            ready = _find_seldon_condition(item, "Ready")
            words = describe_seldon_conditions(item)
            if told.get(title) != words:
                told[title] = words
                job.progress(f"{title}: {words}")
            status = item.get("status", {})
            if ready.get("status") != "True":
                changed.add(title)
            elif _is_current_condition(item, status) or title in changed or time.monotonic() - begun >= SETTLED:
                open_documents.remove(document)
                continue
            if any(condition.get("status") == "False" for condition in status.get("conditions") or []):
                if time.monotonic() - failed.setdefault(title, time.monotonic()) >= min(FAILED_FOR, timeout):
                    raise RolloutError(
                        f"{title} is not ready: {words}", "Fix the cause named above; `mlapp logs` shows more."
                    )
            else:
                failed.pop(title, None)
        if open_documents and time.monotonic() - begun > timeout:
            left = "; ".join(f"{object_title(each)}: {told[object_title(each)]}" for each in open_documents)
            raise RolloutError(f"Not ready after {timeout:.0f} s: {left}", "Look at `mlapp status` and `mlapp logs`.")
        if open_documents:
            time.sleep(PAUSE)


def describe_seldon_conditions(item: dict[str, Any]) -> str:
    """An object's conditions that are not True, or `ready`."""
    found = item.get("status", {}).get("conditions") or []
    if not found:
        return "no status yet"
    wrong = [
        f"{each.get('type')} is {each.get('status')}"
        + (f" ({': '.join(filter(None, (each.get('reason'), each.get('message'))))})" if each.get("reason") else "")
        for each in found
        if each.get("status") != "True"
    ]
    return "; ".join(wrong) or "ready"


def _find_seldon_condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = item.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each.get("type") == kind), {})


def _is_current_condition(item: dict[str, Any], status: dict[str, Any]) -> bool:
    """Whether the status refers to the current generation, or the object is new."""
    generation = item.get("metadata", {}).get("generation", 0)
    seen = status.get("observedGeneration")
    return generation == 1 or (seen is not None and seen >= generation)
