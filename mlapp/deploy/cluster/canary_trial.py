"""Shared by the canaries of all cluster targets: preconditions, the record, and restoring after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mlapp.deploy.cluster import releases
from mlapp.deploy.cluster.api_errors import UnreachableError
from mlapp.deploy.cluster.deploy_session import DeploySession, InterruptedDeployError
from mlapp.deploy.cluster.releases import ReleaseRecord
from mlapp.deploy.target import DeployError, Shipment

Records = Sequence[ReleaseRecord]


def require_live_for_canary(session: DeploySession[Any]) -> tuple[ReleaseRecord, Records]:
    """The live release to run a canary beside, and all recorded releases.

    Raises:
        DeployError: nothing is live, or another release is still undecided.
    """
    records = session.releases.list_records()
    live = releases.find_live_release(records)
    if live is None:
        raise DeployError("There is no live release, which a canary needs.", "Deploy once without --canary.")
    if (undecided := releases.find_canary_release(records)) or (
        undecided := releases.find_interrupted_release(records)
    ):
        raise DeployError(
            f"Release {undecided.number} is not finished ({undecided.state}); nothing was changed.",
            "`mlapp promote` or `mlapp abort` a canary; deploy an interrupted release again.",
        )
    return live, records


def require_canary_trial(session: DeploySession[Any]) -> tuple[ReleaseRecord, ReleaseRecord | None, Records]:
    """The canary, the live release, and all recorded releases.

    Raises:
        DeployError: there is no canary.
    """
    records = session.releases.list_records()
    record = releases.find_canary_release(records)
    if record is None:
        raise DeployError(
            "There is no canary.", f"Start one: `mlapp deploy --target {session.target.name} --canary 10`."
        )
    return record, releases.find_live_release(records), records


def record_canary_trial(
    session: DeploySession[Any],
    shipment: Shipment,
    goal: Sequence[dict[str, Any]],
    records: Records,
    percent: int,
    url: str | None,
) -> ReleaseRecord:
    """Record a canary before any of its objects is written; `goal` has the documents that its promotion applies."""
    return session.releases.create_record(
        shipment,
        goal,
        records,
        by=session.read_deploy_author(),
        percent=percent,
        note=f"began as a canary at {percent} %",
        url=url,
    )


@contextmanager
def undo_failed_canary_start(
    session: DeploySession[Any], record: ReleaseRecord, before: ReleaseRecord, undo: Callable[[], None]
) -> Iterator[None]:
    """Start a canary inside the block. On failure, `undo` routes all traffic back to `before`.

    Raises:
        UnreachableError: the server became unreachable; the canary stays as it is.
        DeployError: the canary was refused, did not become ready or was interrupted, and has been removed.
    """
    try:
        yield
    except KeyboardInterrupt:
        undo()
        session.releases.mark_state(record, "aborted", "interrupted")
        raise InterruptedDeployError(
            f"Interrupted: the canary was removed, and release {before.number} is live.",
            "Deploy with --canary again to retry.",
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        undo()
        session.releases.mark_state(record, "failed", error.what.splitlines()[0][:500])
        raise DeployError(
            f"The canary failed: {error.what}\nIt was removed; release {before.number} is live.", error.todo
        ) from error


@contextmanager
def undo_failed_canary_promotion(
    session: DeploySession[Any], record: ReleaseRecord, before: ReleaseRecord | None, undo: Callable[[], None]
) -> Iterator[None]:
    """Make a canary live inside the block. On failure, `undo` removes the canary and `before` is applied again.

    Raises:
        UnreachableError: the server became unreachable; the next `mlapp promote` continues.
        DeployError: the release was refused or did not become ready, or was interrupted while its canary still serves.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedDeployError(
            f"Interrupted: release {record.number} is rolling out, and its canary still serves.",
            "Run `mlapp promote` again to finish, or `mlapp abort` to go back.",
        ) from None
    except UnreachableError:
        raise
    except DeployError as error:
        undo()
        raise session.restore_release(record, before, error) from error
