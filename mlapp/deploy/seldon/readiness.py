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
FAILURE_PATIENCE = 15.0
"""Seconds to tolerate a model that is reported as failed: Seldon retries, also on other Servers."""
PAUSE = 0.5


def wait_for_seldon_objects(session: DeploySession[Any], documents: Sequence[dict[str, Any]], timeout: float) -> None:
    """Wait until the condition `Ready` of each object is True.

    Raises:
        RolloutError: an object does not become ready; includes Seldon's message.
    """
    start = time.monotonic()
    open_documents = list(documents)
    changed_titles: set[str] = set()
    reported: dict[str, str] = {}
    failed_since: dict[str, float] = {}
    lock: DeployLock = session.lock
    while open_documents:
        lock.check_held()
        for document in list(open_documents):
            title = object_title(document)
            item = session.cluster.get_object(find_object_kind(document), document["metadata"]["name"]) or {}
            ready = _find_seldon_ready_condition(item)
            text = describe_seldon_conditions(item)
            if reported.get(title) != text:
                reported[title] = text
                session.progress(f"{title}: {text}")
            status = item.get("status", {})
            if ready.get("status") != "True":
                changed_titles.add(title)
            elif _is_current_condition(item, status) or title in changed_titles or time.monotonic() - start >= SETTLED:
                open_documents.remove(document)
                continue
            if any(condition.get("status") == "False" for condition in status.get("conditions") or []):
                if time.monotonic() - failed_since.setdefault(title, time.monotonic()) >= min(
                    FAILURE_PATIENCE, timeout
                ):
                    raise RolloutError(
                        f"{title} is not ready: {text}", "Fix the cause named above; `mlapp logs` shows more."
                    )
            else:
                failed_since.pop(title, None)
        if open_documents and time.monotonic() - start > timeout:
            reasons = "; ".join(
                f"{object_title(document)}: {reported[object_title(document)]}" for document in open_documents
            )
            raise RolloutError(
                f"Not ready after {timeout:.0f} s: {reasons}", "Look at `mlapp status` and `mlapp logs`."
            )
        if open_documents:
            time.sleep(PAUSE)


def describe_seldon_conditions(item: dict[str, Any]) -> str:
    """An object's conditions that are not True, or `ready`."""
    conditions = item.get("status", {}).get("conditions") or []
    if not conditions:
        return "no status yet"
    problems = [
        f"{condition.get('type')} is {condition.get('status')}"
        + (
            f" ({': '.join(filter(None, (condition.get('reason'), condition.get('message'))))})"
            if condition.get("reason")
            else ""
        )
        for condition in conditions
        if condition.get("status") != "True"
    ]
    return "; ".join(problems) or "ready"


def _find_seldon_ready_condition(item: dict[str, Any]) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = item.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == "Ready"), {})


def _is_current_condition(item: dict[str, Any], status: dict[str, Any]) -> bool:
    """Whether the status refers to the current generation, or the object is new."""
    generation = item.get("metadata", {}).get("generation", 0)
    observed = status.get("observedGeneration")
    return generation == 1 or (observed is not None and observed >= generation)
