"""Retrains when quality falls, and promotes the new version if it is better.

A retrained version has the alias `challenger`, and is not `latest` until it is promoted.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlapp.config import Promote, Retrain
from mlapp.errors import MlappError
from mlapp.frameworks.metrics import is_better_metric
from mlapp.monitoring.comparison import compare_versions_live
from mlapp.monitoring.place import Place
from mlapp.monitoring.windows import WindowReport
from mlapp.project import Project
from mlapp.store import ModelVersion, open_store
from mlapp.store.references import CHALLENGER, HELD

log = logging.getLogger("mlapp.monitoring")
PERIODS = {"hour": 3600, "day": 86400, "week": 7 * 86400}


def retrain_if_due(project: Project, place: Place, reports: Sequence[WindowReport], now: float) -> str | None:
    """Retrain if quality is in alarm, enough truths are known, and the rate limit permits it.

    Returns:
        The number of the new version; None if nothing was trained.
    """
    settings = project.settings.monitor.retrain
    assert settings is not None
    known = [report for report in reports if report.truths]
    if not known or not any(alarm.kind == "quality" for alarm in known[-1].alarms):
        return None
    version = known[-1].version
    if sum(report.truths for report in known if report.version == version) < settings.min_labels:
        return None
    if not _claim_retraining(place, settings, now):
        return None
    try:
        made = _train_challenger(project, settings)
    except MlappError as error:
        log.error("%s could not be trained again: %s", project.name, error.what)
        return None
    project.store.promote(project.name, made.version, CHALLENGER)
    log.info(
        "%s version %s was trained because quality fell, and has the alias `%s`.",
        project.name,
        made.version,
        CHALLENGER,
    )
    if project.settings.monitor.promote is not None:
        try:
            promote_challenger_if_better(project, made.version, version, project.settings.monitor.promote, now)
        except MlappError as error:
            log.error("%s version %s was not promoted: %s", project.name, made.version, error.what)
    return str(made.version)


def promote_challenger_if_better(
    project: Project, challenger: int, champion: str, settings: Promote, now: float
) -> bool:
    """Promote the challenger if it is better on everything that `monitor.promote` names."""
    store = project.store
    metric = settings.better
    old = store.manifest(project.name, store.resolve(project.name, champion)).headline.get(metric)
    new = store.manifest(project.name, challenger).headline.get(metric)
    if "test" in settings.on and not is_better_metric(metric, new, old):
        log.info("%s version %s is not better in %s on the test split.", project.name, challenger, metric)
        return False
    if "live" in settings.on:
        found = compare_versions_live(project, [int(champion), challenger], since=now - 7 * 86400, until=now)
        live = [side.metrics.get(metric) for side in found.sides]
        if not is_better_metric(metric, live[1], live[0]):
            log.info("%s version %s is not better in %s on live data.", project.name, challenger, metric)
            return False
    store.release(project.name, challenger)
    served = project.settings.serve.model
    alias = settings.alias or (served if served in store.aliases(project.name) else None)
    if alias is not None:
        store.promote(project.name, challenger, alias)
    return True


def _claim_retraining(place: Place, settings: Retrain, now: float) -> bool:
    """Reserve one of the trainings of this hour, day or week."""
    most, _, unit = settings.at_most.partition("/")
    period = int(now // PERIODS[unit])
    return any(
        place.storage.create_key(place.key("retrain", f"{unit}-{period}", f"{number}.json"), os.urandom(16))
        for number in range(int(most))
    )


def _train_challenger(project: Project, settings: Retrain) -> ModelVersion:
    origin = {"engine": settings.run, HELD: "retrain"}
    if settings.run == "flyte":
        return _retrain_on_flyte(project, origin)
    from mlapp import training
    from mlapp.provenance import read_git_state

    trained = training.run(project.app)
    return project.store.put(trained, git=read_git_state(project.root), origin=origin)


def _retrain_on_flyte(project: Project, origin: dict[str, str]) -> ModelVersion:
    """Train on Flyte, and import the version through a temporary store: in the project's store it would be
    `latest` at once.

    Raises:
        MlappError: the training failed; the error says why.
    """
    with tempfile.TemporaryDirectory(prefix="mlapp-retrain-") as folder:
        found = subprocess.run(
            [sys.executable, "-m", "mlapp", "train", "--remote", "--json"],
            cwd=project.root,
            env={**os.environ, "MLAPP_STORE": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode:
            raise MlappError(f"The training on Flyte failed: {found.stderr.strip()[-500:]}", "See `mlapp runs list`.")
        version = open_store(folder, Path(folder)).get(project.name)
        manifest = msgspec.structs.replace(version.manifest, origin={**version.manifest.origin, **origin})
        return project.store.import_version(ModelVersion(manifest, version.files))
