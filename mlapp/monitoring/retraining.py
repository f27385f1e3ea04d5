"""Retrains when quality falls, and promotes the new version if it is better.

A retrained version has the alias `challenger`, and is not `latest` until it is promoted. If a process is killed at any
point, a later run finishes its work.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from mlapp.config import Promote, Retrain
from mlapp.data.secrets import redact_secrets
from mlapp.errors import MlappError, StoreError
from mlapp.frameworks.metrics import is_better_metric
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.comparison import compare_versions_live
from mlapp.monitoring.database import open_database
from mlapp.monitoring.inspection import read_truths
from mlapp.monitoring.live_rows import join_truths
from mlapp.monitoring.place import WEEK, Place, parse_seconds
from mlapp.monitoring.quality import FEWEST
from mlapp.monitoring.trainings import Attempt, Result, Trainings
from mlapp.monitoring.truth import Truth
from mlapp.monitoring.windows import WindowReport
from mlapp.project import Project
from mlapp.store import Manifest, ModelVersion, open_store
from mlapp.store.manifest import list_manifest_parameters
from mlapp.store.names import LATEST
from mlapp.store.references import CHALLENGER, HELD
from mlapp.temporary_folders import open_temporary_folder

log = logging.getLogger("mlapp.monitoring")
LONGEST_FAILURE = 2000
"""Maximum number of stored characters of a failure's reason."""
ANSWERING = 12
"""A version is retrained only if it has answered in at least one of this number of last windows."""


def retrain_if_due(project: Project, place: Place, reports: Sequence[WindowReport], now: float) -> str | None:
    """Retrain if quality is in alarm, enough truths are known, and the rate limit permits it.

    First, the version of a run that was killed gets its alias and is promoted.

    Returns:
        The number of the new version; None if nothing was trained.
    """
    settings = project.settings.monitor.retrain
    assert settings is not None
    trainings = Trainings(place)
    finished = _finish_last_training(project, trainings, now)
    if finished is not None:
        return finished
    version = find_failing_version(reports)
    if version is None:
        return None
    attempt = trainings.find_due_attempt(settings.at_most, version, now)
    if attempt is None or not _has_enough_labels(project, place, version, reports, settings.min_labels, now):
        return None
    if not trainings.claim_attempt(attempt):
        return None
    with trainings.give_signs(attempt):
        new_version = _train_attempt(project, trainings, attempt, settings)
        if new_version is None:
            return None
        _decide_challenger(project, trainings, attempt, new_version, now)
    return str(new_version)


def find_failing_version(reports: Sequence[WindowReport]) -> str | None:
    """The version that answers, if its quality is in alarm.

    Truths arrive late, so the quality of the last window with enough truths counts. If a canary and the live release
    answer in the same window, the one with more rows counts.
    """
    with_truths = [report for report in reports if report.truths >= FEWEST and report.metrics]
    answering = {report.version for report in [report for report in reports if report.state != "empty"][-ANSWERING:]}
    last = max(with_truths, key=lambda report: (report.since, report.rows), default=None)
    if last is None or last.version not in answering or not any(alarm.kind == "quality" for alarm in last.alarms):
        return None
    return last.version


def promote_challenger_if_better(project: Project, challenger: int, settings: Promote, now: float) -> bool:
    """Promote the challenger if it is better on everything that `monitor.promote` names.

    It is compared with the version that it would replace. That need not be the version with the fallen quality, because
    training takes a while.
    """
    store = project.store
    metric = settings.better
    served = project.settings.serve.model
    aliases = store.aliases(project.name)
    alias = settings.alias or (served if served in aliases else None)
    champion = store.resolve(project.name, alias if alias in aliases else LATEST)
    if champion == challenger:  # a run that was killed, or the operator, has promoted it
        if alias is not None and aliases.get(alias) != challenger:
            store.promote(project.name, challenger, alias)
        return True
    champion_value = store.manifest(project.name, champion).headline.get(metric)
    challenger_value = store.manifest(project.name, challenger).headline.get(metric)
    if "test" in settings.on and not is_better_metric(metric, challenger_value, champion_value):
        log.info(
            "%s version %d is not better than version %d in %s on the test split.",
            project.name,
            challenger,
            champion,
            metric,
        )
        return False
    if "live" in settings.on:
        comparison = compare_versions_live(project, [champion, challenger], since=now - WEEK, until=now)
        live = [side.metrics.get(metric) for side in comparison.sides]
        if not is_better_metric(metric, live[1], live[0]):
            log.info(
                "%s version %d is not better than version %d in %s on live data.",
                project.name,
                challenger,
                champion,
                metric,
            )
            return False
    store.release(project.name, challenger)
    if alias is not None:
        store.promote(project.name, challenger, alias)
    log.info("%s version %d is better in %s, and replaces version %d.", project.name, challenger, metric, champion)
    return True


def _finish_last_training(project: Project, trainings: Trainings, now: float) -> str | None:
    """Finish a training that was killed after it had stored a version; returns the version if it is decided."""
    last = trainings.find_last()
    if last is None or trainings.is_decided(last):
        return None
    result = trainings.read_result(last)
    if (result is not None and result.version is None) or trainings.is_worked_on(last, now):
        return None
    version = result.version if result is not None else _find_trained_version(project, last.run)
    if version is None:
        return None
    if result is None:
        trainings.record_result(last, Result(time.time(), version))
    return str(version) if _decide_challenger(project, trainings, last, version, now) else None


def _find_trained_version(project: Project, run: str) -> int | None:
    versions = project.store.versions(project.name, [])
    return next((one.version for one in reversed(versions) if one.origin.get("retrain") == run), None)


def _train_attempt(project: Project, trainings: Trainings, attempt: Attempt, settings: Retrain) -> int | None:
    """Train and store a version; returns its number. None if the training failed, which is logged and recorded, or if
    another process has taken over.
    """
    origin = {"engine": settings.run, HELD: "retrain", "retrain": attempt.run}
    train = _train_on_flyte if settings.run == "flyte" else _train_here
    try:
        replaced = project.store.manifest(project.name, int(attempt.replaces))
        version = train(project, replaced, origin, lambda: trainings.is_superseded(attempt))
    except MlappError as error:
        log.error("%s could not be trained again: %s %s", project.name, error.what, error.todo)
        failure = redact_secrets(f"{error.what} {error.todo}")[:LONGEST_FAILURE]
        trainings.record_result(attempt, Result(time.time(), failure=failure))
        return None
    if version is None:
        log.warning("%s was trained by another process meanwhile; this model is not stored.", project.name)
        return None
    trainings.record_result(attempt, Result(time.time(), version))
    log.info("%s version %d was trained because quality fell.", project.name, version)
    return version


def _decide_challenger(project: Project, trainings: Trainings, attempt: Attempt, version: int, now: float) -> bool:
    """Set the alias of a trained version, and promote it if it is better. Can be repeated.

    Returns:
        False if the store failed, so that a later run must decide.
    """
    store, name = project.store, project.name
    if version not in store.list_numbers(name):
        log.warning("%s version %d was deleted before it was promoted.", name, version)
    else:
        if store.aliases(name).get(CHALLENGER, 0) < version:
            store.promote(name, version, CHALLENGER)
            log.info("%s version %d has the alias `%s`.", name, version, CHALLENGER)
        if project.settings.monitor.promote is not None:
            try:
                promote_challenger_if_better(project, version, project.settings.monitor.promote, now)
            except StoreError as error:  # a later run can succeed
                log.error("%s version %d was not promoted: %s %s", name, version, error.what, error.todo)
                return False
            except MlappError as error:
                log.error("%s version %d was not promoted: %s %s", name, version, error.what, error.todo)
    trainings.record_decision(attempt)
    return True


def _has_enough_labels(
    project: Project, place: Place, version: str, reports: Sequence[WindowReport], min_labels: int, now: float
) -> bool:
    """Whether a version has enough logged rows with truths, in the reported windows or before them."""
    if sum(report.truths for report in reports if report.version == version) >= min_labels:
        return True
    settings = project.settings.monitor
    truths: list[Truth] = []
    try:
        rules = ColumnPrivacy(settings.columns, project.name)
        truths = read_truths(project.app, rules, place, now - parse_seconds(settings.keep), now, None)
    except MlappError as error:
        log.warning("Truths are missing: %s", error.what)
    with open_database(place, version=version, truths=truths) as database:
        join_truths(database)
        count: int = database.execute("SELECT count(*) FROM known WHERE version = ?", [version]).fetchone()[0]
    return count >= min_labels


def _train_here(
    project: Project, replaced: Manifest, origin: dict[str, str], is_superseded: Callable[[], bool]
) -> int | None:
    """Train in this process as the replaced version was trained; None if another process has taken over meanwhile."""
    from mlapp import training
    from mlapp.provenance import read_git_state

    app = project.app
    project.store.check_writable()
    previous = None if replaced.parent is None else project.store.get(project.name, replaced.parent)
    trained = training.run(app, list_manifest_parameters(replaced), previous=previous, must_be_savable=True)
    if is_superseded():
        return None
    return project.store.put(trained, git=read_git_state(project.root), origin=origin).version


def _train_on_flyte(
    project: Project, replaced: Manifest, origin: dict[str, str], is_superseded: Callable[[], bool]
) -> int | None:
    """Train on Flyte with the parameters of the replaced version, and import the new one through a temporary store: in
    the project's store, it would be `latest`.

    All attempts of a training have the same run id. So if the answer to its start is lost, or this process is killed,
    the next attempt waits for the run that goes on.

    Raises:
        MlappError: the training failed; the error says why.
    """
    command = [sys.executable, "-m", "mlapp", "train", "--remote", "--run-id", origin["retrain"], "--json"]
    if project.environment is not None:
        command += ["--env", project.environment]
    with open_temporary_folder("retrain") as folder:
        file = folder / "parameters.json"
        file.write_bytes(msgspec.json.encode(replaced.parameters))
        completed = subprocess.run(  # noqa: S603
            [*command, "--params", str(file)],
            cwd=project.root,
            env={**os.environ, "MLAPP_APP": project.location.address, "MLAPP_STORE": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            reason = completed.stderr.strip().rpartition("Error: ")[2].strip()[-1000:]
            raise MlappError(f"The training on Flyte failed: {reason}", "See `mlapp runs list`.")
        if is_superseded():
            return None
        version = open_store(str(folder), folder).get(project.name)
        manifest = msgspec.structs.replace(version.manifest, origin={**version.manifest.origin, **origin})
        return project.store.import_version(ModelVersion(manifest, version.files)).version
