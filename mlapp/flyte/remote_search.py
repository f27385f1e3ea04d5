"""`mlapp tune --remote`: the study is local, and its trials run on Flyte, many per run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mlapp.errors import MlappError, UsageError
from mlapp.flyte.errors import FlyteError, RunFailedError, UnreachableError
from mlapp.flyte.interface import Engine, Registration, Run, TrialResult, Trials
from mlapp.pipeline import Pipeline
from mlapp.store import Store
from mlapp.tuning import (
    READER_STAGES,
    Options,
    PendingTrial,
    SearchResult,
    Study,
    StudyDefinition,
    list_spaces,
    require_optuna,
)

MAX_RUNS = 5
"""Maximum number of runs per search: trials of one run start together, so they cannot learn from each other."""
DEFAULT_CONCURRENCY = 8
"""Default number of concurrent trials."""


def search_on_flyte(
    engine: Engine,
    pipeline: Pipeline,
    options: Options,
    metric: str,
    registration: Registration,
    *,
    follow: Callable[[str], Any],
    started: Callable[[Run], Any] = lambda run: None,
    on_update: Callable[[SearchResult], None] = lambda result: None,
) -> SearchResult:
    """Search the parameters that the app declares. A resumed search first waits for the run that it had started.

    Args:
        metric: the metric for comparing trials, from `choose_remote_search_metric`.
        follow: waits for a run to end.
        started: called with each started run.
        on_update: called with all trials after each run.

    Raises:
        UsageError: another search is running. RunFailedError: no trial of a run succeeded.
        MlappError: every trial failed; the first trial's error.
    """
    study = Study.open(pipeline, options, StudyDefinition.for_metric(metric, pipeline, options))
    with study.lock_search():
        for run_id, batch in study.list_remote_trials().items():
            try:
                _collect_search_results(engine, study, run_id, batch, follow)
            except UnreachableError:
                raise
            except (FlyteError, UsageError):  # its trials count as failed and are replaced
                pass
            on_update(study.collect_trials())
        missing_count = options.trials - sum(trial.state != "failed" for trial in study.collect_trials().trials)
        at_once = options.workers or DEFAULT_CONCURRENCY
        size = max(at_once, math.ceil(missing_count / MAX_RUNS))
        data_of = None
        while missing_count > 0:
            batch = [study.ask() for _ in range(min(size, missing_count))]
            missing_count -= len(batch)
            trials = Trials([trial.parameters for trial in batch], options.folds, options.seed, at_once, data_of)
            run = engine.start_run("tune", options.fixed, registration, trials=trials)
            data_of = data_of or run.id
            study.mark_remote_trials(batch, run.id)
            started(run)
            _collect_search_results(engine, study, run.id, batch, follow)
            on_update(study.collect_trials())
    result = study.collect_trials()
    if not result.rank_trials():
        raise study.first_error()
    return result


def check_remote_search(pipeline: Pipeline, options: Options) -> None:
    """Check a search before anything is built or registered for it.

    Raises:
        UsageError: there is nothing to search, or a reader's parameter is searched although the data is read once.
        MissingExtraError: Optuna is not installed.
    """
    for space in list_spaces(pipeline, options.fixed):
        if space.parameter.stage in READER_STAGES:
            raise UsageError(
                f"Parameter '{space.parameter.name}' of {space.parameter.stage} has a Search, but with --remote the "
                f"data is read only once.",
                f"Give it a value: -p {space.parameter.name}={space.example}. Or run the search here, without "
                f"--remote.",
            )
    require_optuna()


def choose_remote_search_metric(store: Store, app: str, metric: str | None) -> str:
    """The metric for comparing trials: `metric`, or the first one of the app's latest version.

    Raises:
        UsageError: there is neither. The evaluator's metrics cannot be determined without reading the data.
    """
    versions = store.versions(app)
    name = metric or next(iter(versions[-1].headline if versions else ()), None)
    if name is None:
        raise UsageError(
            f"No metric is known to compare the trials of {app}, because it has no version.",
            "Give one, such as --metric accuracy; or train first: mlapp train --remote.",
        )
    return name


def _collect_search_results(
    engine: Engine, study: Study, run: str, batch: list[PendingTrial], follow: Callable[[str], Any]
) -> None:
    """Wait for a run, and report the results of its trials to the study."""
    try:
        follow(run)
        results = engine.fetch_trial_results(run)
    except UnreachableError:
        raise
    except MlappError as failure:  # the run failed, is unknown, or its outputs have expired
        for trial in batch:
            study.tell(trial, error=failure)
        raise
    reasons = engine.list_run_kill_reasons(run) if None in results else []
    for trial, result in zip(batch, results, strict=True):
        try:
            study.tell(trial, _read_search_metric(result, study.definition.metric, run, reasons))
        except MlappError as error:
            study.tell(trial, error=error)


def _read_search_metric(result: TrialResult | None, metric: str, run: str, reasons: Sequence[str] = ()) -> float:
    """The metric of a trial.

    Args:
        reasons: why pods of the run were killed, if the cluster reports it.

    Raises:
        MlappError: the trial failed, or its metric is not a number. UsageError: it has no such metric.
    """
    if result is None:
        raise MlappError(
            f"The trial was killed: {', '.join(reasons)}."
            if reasons
            else "The trial was killed, probably because it ran out of memory.",
            "Give it more: @app.trainer(resources=Resources(memory='16Gi')), or fewer --workers. Logs: mlapp runs logs "
            f"{run}",
        )
    if result.error is not None:
        raise RunFailedError(*result.error, result.trace)
    if metric not in result.metrics:
        metric_list = " or ".join(result.metrics) or "(it gives none)"
        raise UsageError(f"The evaluator returns no metric '{metric}'.", f"Choose one: --metric {metric_list}.")
    value = result.metrics[metric]
    if value is None:
        raise MlappError(f"{metric} is not a number.", "Check what the evaluator returns for a small fold.")
    return value
