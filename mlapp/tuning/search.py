"""The local search: worker processes that take trials from one study."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, get_context
from signal import SIG_IGN, SIGINT, Signals, signal
from typing import Any

from mlapp import env_vars
from mlapp.errors import MlappError, UserCodeError
from mlapp.frameworks import threads
from mlapp.pipeline import Pipeline
from mlapp.progress import Progress
from mlapp.tuning.objective import Judge, read_objective_metric
from mlapp.tuning.study import Asked, Found, Options, Question, Study, require_optuna

FOLD = 1_000_000
"""Step offset per fold. Trials are compared at equal steps, so the end of a fold must be after all of its epochs."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Load = Callable[[], Pipeline]


def search_parameters(load: Load, options: Options, tell: Callable[[Found], None] = lambda found: None) -> Found:
    """Search the parameters that the app declares.

    Args:
        load: returns the pipeline; must be picklable, because every worker process calls it.
        tell: receives all trials so far, about once a second.

    Raises:
        UsageError: nothing to search, an unknown metric, or another search is running. MissingExtraError: no Optuna.
        MlappError: every trial failed (the first trial's error), or a worker process died.
    """
    require_optuna()
    pipeline = load()
    pipeline.require_stages("data_reader", "model")
    question = Question.of(pipeline, options)
    study = Study.open(pipeline, options, question)
    with study.lock_search():
        missing = options.trials - sum(trial.state != "failed" for trial in study.collect_trials().trials)
        if missing > 0:
            _run_search_workers(load, options, question, missing, lambda: tell(study.collect_trials()))
    found = study.collect_trials()
    if not found.rank_trials():
        raise study.first_error()
    return found


def _run_search_workers(
    load: Load, options: Options, question: Question, missing: int, tell: Callable[[], None]
) -> None:
    workers = max(1, min(options.workers or threads.count_thread_cores(), missing))
    context = get_context("spawn")
    left = context.Value("i", missing)
    processes = [
        context.Process(target=_take_search_trials, args=(load, options, question, left, at, os.getpid()), daemon=True)
        for at in range(workers)
    ]
    try:
        # Numeric libraries read this at import.
        with (
            env_vars.override_variables(dict.fromkeys(THREADS, str(max(1, threads.count_thread_cores() // workers)))),
            _ignore_search_signal(SIGINT),
        ):
            for process in processes:
                process.start()
        waiting = {process.sentinel for process in processes}
        while waiting:
            waiting -= set(connection.wait(list(waiting), timeout=1))
            tell()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()
    died = [process.exitcode for process in processes if process.exitcode]
    if died:
        raise MlappError(
            f"{len(died)} of {workers} workers ended with exit code {died[0]}; -9 often means a lack of memory.",
            "Run it again to continue after the completed trials. If memory is short, use fewer --workers.",
        )


@contextmanager
def _ignore_search_signal(number: Signals) -> Iterator[None]:
    """Make processes started in the block ignore a signal: Ctrl-C reaches all of them, but this process ends them."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    before = signal(number, SIG_IGN)
    try:
        yield
    finally:
        signal(number, before)


def _take_search_trials(load: Load, options: Options, question: Question, left: Any, worker: int, parent: int) -> None:
    """The main function of a worker process: run trials until none is left."""
    threading.Thread(target=_end_search_with_parent, args=(parent,), daemon=True).start()
    pipeline = load()
    judge = Judge(pipeline, options.fixed, options.folds, options.seed)
    study = Study.open(pipeline, options, question, worker=worker)
    while _take_pending_search_trial(left):
        asked = study.ask()
        try:
            study.tell(asked, evaluate_search_trial(judge, asked, question))
        except MlappError as error:
            study.tell(asked, error=error)


def evaluate_search_trial(judge: Judge, asked: Asked, question: Question) -> float | None:
    """The mean of the metric over the folds; None if the trial was pruned because others were better at that point.

    Raises:
        MlappError: the pipeline fails with these parameters.
    """
    trial = asked.handle

    def report_progress(fold: int, progress: Progress) -> None:
        shown = _read_tuning_search_progress(progress, question)
        if fold or shown is None:
            return
        trial.report(shown, progress.step)
        if trial.should_prune():
            raise _Pruned(
                "The trial was stopped early: it is worse than the others at this step.", "No action is needed."
            )

    values: list[float] = []
    try:
        for fold, measured in enumerate(judge.score_folds(asked.parameters, report_progress)):
            values.append(read_objective_metric(measured, question.metric))
            trial.report(sum(values) / len(values), FOLD + fold)
            if len(values) < judge.folds and trial.should_prune():
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


def _read_tuning_search_progress(progress: Progress, question: Question) -> float | None:
    """The value that a trainer reported, in the metric's direction: the metric itself, or a loss."""
    if question.metric in progress.metrics:
        return progress.metrics[question.metric]
    loss = progress.metrics.get("val_loss", progress.metrics.get("loss"))
    return loss if loss is None or question.minimize else -loss


def _take_pending_search_trial(left: Any) -> bool:
    with left.get_lock():
        left.value -= 1
        return bool(left.value >= 0)


def _end_search_with_parent(parent: int) -> None:
    """End this worker when its parent process ends, so that a killed search leaves no workers."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
