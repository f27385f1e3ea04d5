"""The local search: worker processes that take trials from one study."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, Signals, pthread_sigmask
from typing import Any

from mlapp import env_vars
from mlapp.errors import MlappError, UserCodeError
from mlapp.frameworks import threads
from mlapp.pipeline import Pipeline
from mlapp.progress import Progress
from mlapp.tuning.objective import TrialEvaluator, read_objective_metric
from mlapp.tuning.study import Options, PendingTrial, SearchResult, Study, StudyDefinition, require_optuna

FOLD = 1_000_000
"""Step offset per fold. Trials are compared at equal steps, so the end of a fold must come after all of its epochs."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Load = Callable[[], Pipeline]


def search_parameters(
    load: Load, options: Options, on_update: Callable[[SearchResult], None] = lambda result: None
) -> SearchResult:
    """Search the parameters that the app declares.

    Args:
        load: returns the pipeline; must be picklable, because every worker process calls it.
        on_update: receives all trials so far, about once a second.

    Raises:
        UsageError: nothing to search, an unknown metric, or another search is running. MissingExtraError: no Optuna.
        MlappError: every trial failed (the first trial's error), or a worker process died.
    """
    require_optuna()
    pipeline = load()
    pipeline.require_stages("data_reader", "model")
    definition = StudyDefinition.from_options(pipeline, options)
    study = Study.open(pipeline, options, definition)
    with study.lock_search():
        missing_trials = options.trials - sum(trial.state != "failed" for trial in study.collect_trials().trials)
        if missing_trials > 0:
            _run_search_workers(load, options, definition, missing_trials, lambda: on_update(study.collect_trials()))
    result = study.collect_trials()
    if not result.rank_trials():
        raise study.first_error()
    return result


def _run_search_workers(
    load: Load, options: Options, definition: StudyDefinition, missing_trials: int, on_update: Callable[[], None]
) -> None:
    workers = max(1, min(options.workers or threads.count_thread_cores(), missing_trials))
    context = get_context("spawn")
    remaining = context.Value("i", missing_trials)
    processes = [
        context.Process(
            target=_take_search_trials, args=(load, options, definition, remaining, at, os.getpid()), daemon=True
        )
        for at in range(workers)
    ]
    try:
        # Numeric libraries read this at import.
        with (
            env_vars.override_variables(dict.fromkeys(THREADS, str(max(1, threads.count_thread_cores() // workers)))),
            _delay_signal(SIGINT),
        ):
            for process in processes:
                process.start()
        waiting = {process.sentinel for process in processes}
        while waiting:
            waiting -= set(connection.wait(list(waiting), timeout=1))
            on_update()
    finally:
        for process in (process for process in processes if process.pid is not None):  # an interrupt came before others
            if process.is_alive():
                process.terminate()
            process.join()
    exit_codes = [process.exitcode for process in processes if process.exitcode]
    if exit_codes:
        raise MlappError(
            f"{len(exit_codes)} of {workers} workers ended with exit code {exit_codes[0]}; "
            "-9 often means too little memory.",
            "Run it again to continue after the completed trials. If memory is short, use fewer --workers.",
        )


@contextmanager
def _delay_signal(number: Signals) -> Iterator[None]:
    """Keep a signal waiting until the end of the block, and forever in processes that start in the block.

    Ctrl-C reaches all processes, but this one ends the others.
    """
    previous_mask = pthread_sigmask(SIG_BLOCK, {number})
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, previous_mask)


def _take_search_trials(
    load: Load, options: Options, definition: StudyDefinition, remaining: Any, worker: int, parent: int
) -> None:
    """The main function of a worker process: run trials until none is left."""
    threading.Thread(target=_end_search_with_parent, args=(parent,), daemon=True).start()
    pipeline = load()
    evaluator = TrialEvaluator(pipeline, options.fixed, options.folds, options.seed)
    study = Study.open(pipeline, options, definition, worker=worker)
    while _take_pending_search_trial(remaining):
        trial = study.ask()
        try:
            study.tell(trial, evaluate_search_trial(evaluator, trial, definition))
        except MlappError as error:
            study.tell(trial, error=error)


def evaluate_search_trial(evaluator: TrialEvaluator, trial: PendingTrial, definition: StudyDefinition) -> float | None:
    """The mean of the metric over the folds; None if the trial was pruned, because others were better at that step.

    Raises:
        MlappError: the pipeline fails with these parameters.
    """
    handle = trial.handle

    def report_progress(fold: int, progress: Progress) -> None:
        value = _read_tuning_search_progress(progress, definition)
        if fold or value is None:
            return
        handle.report(value, progress.step)
        if handle.should_prune():
            raise _Pruned(
                "The trial was stopped early: it is worse than the others at this step.", "No action is needed."
            )

    values: list[float] = []
    try:
        for fold, metrics in enumerate(evaluator.score_folds(trial.parameters, report_progress)):
            values.append(read_objective_metric(metrics, definition.metric))
            handle.report(sum(values) / len(values), FOLD + fold)
            if len(values) < evaluator.folds and handle.should_prune():
                return None
    except _Pruned:
        return None
    except UserCodeError as error:
        if isinstance(error.__cause__, _Pruned):
            return None
        raise
    return sum(values) / len(values)


class _Pruned(MlappError):
    """Raised through the user's trainer to end a trial."""


def _read_tuning_search_progress(progress: Progress, definition: StudyDefinition) -> float | None:
    """The value that the trainer reported, for comparison: the metric itself, or the loss in the metric's direction."""
    if definition.metric in progress.metrics:
        return progress.metrics[definition.metric]
    loss = progress.metrics.get("val_loss", progress.metrics.get("loss"))
    return loss if loss is None or definition.minimize else -loss


def _take_pending_search_trial(remaining: Any) -> bool:
    with remaining.get_lock():
        remaining.value -= 1
        return bool(remaining.value >= 0)


def _end_search_with_parent(parent: int) -> None:
    """End this worker when its parent process ends, so that a killed search leaves no workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
