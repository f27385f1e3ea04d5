"""The Optuna study, in SQLite, so that processes can share it and a killed search can continue."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlapp.errors import MissingExtraError, MlappError, UsageError
from mlapp.frameworks import threads
from mlapp.frameworks.metrics import is_lower_better
from mlapp.pipeline import Pipeline
from mlapp.pipeline.parameter_values import to_plain_parameter_value
from mlapp.tuning.objective import TrialEvaluator, read_objective_metric
from mlapp.tuning.spaces import Space, list_spaces

RUN = "run"
"""The attribute of a remote trial with the ID of its run, and its position in the run."""
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a search.

    Attributes:
        trials: total number of trials of the study; a repeated search with the same app and options continues it.
        metric: a metric of the evaluator; None for its first.
        minimize: whether lower is better; if None, the metric's name decides.
        folds: number of folds of the cross-validation on the training split.
        workers: number of processes; None for the number of cores.
        fixed: parameters with given values, which are not searched.
        folder: the folder of the study.
        seed: of the sampler and of the folds.
    """

    trials: int = 20
    metric: str | None = None
    minimize: bool | None = None
    folds: int = 3
    workers: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path(".mlapp/tuning")
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        state: `complete`, `pruned` or `failed`.
        value: the mean of the metric over the folds.
        parameters: by full name.
        duration: in seconds.
        error: why it failed; empty if it did not.
        trace: the traceback of the user's function, if it ran remotely.
    """

    number: int
    state: str
    value: float | None
    parameters: Mapping[str, Any]
    duration: float | None
    error: str = ""
    trace: str = ""


@dataclass(frozen=True)
class PendingTrial:
    """A trial to run.

    Attributes:
        parameters: by full name, for `training.run` or `TrialEvaluator.score_folds`.
        handle: Optuna's trial, which receives reports and decides whether to continue.
    """

    number: int
    parameters: Mapping[str, Any]
    handle: Any


@dataclass(frozen=True)
class SearchResult:
    """Result of a search; `study` is Optuna's object."""

    metric: str
    minimize: bool
    trials: list[Trial]
    study: Any

    @property
    def best(self) -> Trial:
        return self.rank_trials()[0]

    def rank_trials(self) -> list[Trial]:
        """The complete trials, the best first."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return sorted(complete, key=lambda trial: (trial.value or 0.0) * (1 if self.minimize else -1))

    def record(self) -> dict[str, Any]:
        """The search as a version's manifest records it."""
        return {
            "metric": self.metric,
            "minimize": self.minimize,
            "study": self.study.study_name,
            "best": self.best.number,
            "trials": [
                {
                    "number": trial.number,
                    "state": trial.state,
                    "value": trial.value,
                    "parameters": to_plain_parameter_value(dict(trial.parameters)),
                }
                for trial in self.trials
            ],
        }


@dataclass(frozen=True)
class StudyDefinition:
    """The study's name, metric and direction, which all processes of a search share."""

    name: str
    metric: str
    minimize: bool

    @classmethod
    def from_options(cls, pipeline: Pipeline, options: Options) -> StudyDefinition:
        """The definition for these options. Runs one fold with the defaults to find the metrics.

        Raises:
            UsageError: nothing to search, or no such metric. MlappError: the pipeline fails.
        """
        return cls.for_metric(
            _find_study_metric(pipeline, list_spaces(pipeline, options.fixed), options), pipeline, options
        )

    @classmethod
    def for_metric(cls, metric: str, pipeline: Pipeline, options: Options) -> StudyDefinition:
        """The definition for these options and a metric that the evaluator returns.

        Raises:
            UsageError: nothing to search.
        """
        spaces = list_spaces(pipeline, options.fixed)
        minimize = is_lower_better(metric) if options.minimize is None else options.minimize
        # Different spaces, data, folds or directions result in a different study.
        space_key = [(space.name, space.choices, space.numbers) for space in spaces]
        text = repr((space_key, metric, minimize, options.folds, sorted(options.fixed.items())))
        return cls(f"{pipeline.name}-{metric}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", metric, minimize)


class Study:
    """Provides the parameters of trials, and receives their results.

    study = Study.open(pipeline, options, StudyDefinition.from_options(pipeline, options))
    trial = study.ask()
    study.tell(trial, value)
    """

    def __init__(self, study: Any, definition: StudyDefinition, spaces: list[Space], folder: Path) -> None:
        self.study, self.definition, self.spaces, self.folder = study, definition, spaces, folder

    @classmethod
    def open(
        cls, pipeline: Pipeline, options: Options, definition: StudyDefinition, *, worker: int | None = None
    ) -> Study:
        """Create the study, or continue the existing one.

        Args:
            worker: the worker's number; None in the process that creates the study.

        Raises:
            MissingExtraError: Optuna is not installed. OSError: the folder is not writable.
        """
        optuna = require_optuna()
        file = (options.folder / "studies.db").resolve()
        if worker is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for writers
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{file}",
            engine_kwargs={"connect_args": {"timeout": 60}},
            skip_compatibility_check=worker is not None,
            skip_table_creation=worker is not None,
        )
        direction = "minimize" if definition.minimize else "maximize"
        study = optuna.create_study(
            storage=storage, study_name=definition.name, direction=direction, load_if_exists=True
        )
        # A resumed search must not draw the same random numbers again.
        trial_count = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(
            seed=options.seed + 1000 * trial_count + (worker or 0), constant_liar=True, n_startup_trials=5
        )
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3)
        return cls(study, definition, list_spaces(pipeline, options.fixed), file.parent)

    def ask(self) -> PendingTrial:
        """The next trial."""
        trial = self.study.ask()
        return PendingTrial(trial.number, {space.name: space.suggest_value(trial) for space in self.spaces}, trial)

    def tell(self, trial: PendingTrial, value: float | None = None, error: MlappError | None = None) -> None:
        """Finish the trial with a value or an error; without either, it counts as pruned."""
        states = require_optuna().trial.TrialState
        if error is not None:
            trial.handle.set_user_attr("error", (error.what, error.todo, getattr(error, "trace", "")))
            self.study.tell(trial.handle, state=states.FAIL, skip_if_finished=True)
        elif value is None:
            self.study.tell(trial.handle, state=states.PRUNED, skip_if_finished=True)
        else:
            self.study.tell(trial.handle, value, skip_if_finished=True)

    def mark_remote_trials(self, batch: Sequence[PendingTrial], run: str) -> None:
        """Record that a remote run has these trials, in this order, so that a resumed search waits for it."""
        for position, trial in enumerate(batch):
            trial.handle.set_user_attr(RUN, (run, position))

    def list_remote_trials(self) -> dict[str, list[PendingTrial]]:
        """The pending remote trials by run, in the order of each run."""
        optuna = require_optuna()
        batches: dict[str, dict[int, PendingTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if RUN in trial.user_attrs:
                run, position = trial.user_attrs[RUN]
                handle = optuna.trial.Trial(self.study, trial._trial_id)
                batches.setdefault(run, {})[position] = PendingTrial(trial.number, trial.params, handle)
        return {run: [batch[position] for position in sorted(batch)] for run, batch in batches.items()}

    @contextmanager
    def lock_search(self) -> Iterator[None]:
        """Lock the study for one search. Trials that a killed search left running count as failed.

        Raises:
            UsageError: another search is running.
        """
        # SQLite's lock, on a separate file: on every system, it is released when the process ends for any reason.
        with closing(sqlite3.connect(self.folder / f"{self.definition.name}.lock", timeout=0)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                raise UsageError(
                    f"Another `mlapp tune` already searches these parameters: study {self.definition.name}.",
                    "Wait until it ends, or stop it. Then run this again to continue the search.",
                ) from None
            states = require_optuna().trial.TrialState
            for trial in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
                if RUN not in trial.user_attrs:
                    self.study.tell(trial.number, state=states.FAIL)
            yield

    def collect_trials(self) -> SearchResult:
        """All finished trials."""
        trials = [
            Trial(
                trial.number,
                STATES[trial.state.name],
                trial.value,
                trial.params,
                trial.duration.total_seconds() if trial.duration else None,
                error=_read_study_error(trial)[0],
                trace=_read_study_error(trial)[2],
            )
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.name in STATES
        ]
        return SearchResult(self.definition.metric, self.definition.minimize, trials, self.study)

    def first_error(self) -> MlappError:
        """The error of the first trial, which explains why no trial was completed."""
        errors = map(_read_study_error, self.study.get_trials(deepcopy=False))
        unknown = ("No trial was completed.", "Give more --trials.", "")
        problem, todo, _ = next((error for error in errors if error[0]), unknown)
        return MlappError(f"Every trial failed; the first with: {problem}", todo)


def _read_study_error(trial: Any) -> tuple[str, str, str]:
    """The error, its remedy and its traceback as `Study.tell` recorded them; empty without an error."""
    problem, todo, trace = (*trial.user_attrs.get("error", ("", "")), "")[:3]
    return problem, todo, trace


def require_optuna() -> Any:
    """Optuna, with its messages turned off.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("mlapp tune", "tune") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _find_study_metric(pipeline: Pipeline, spaces: list[Space], options: Options) -> str:
    evaluator = TrialEvaluator(pipeline, options.fixed, options.folds, options.seed)
    required_values = {space.name: space.example for space in spaces if space.parameter.is_required}
    with threads.limit_to_one_thread():
        metrics = next(evaluator.score_folds(required_values, lambda fold, progress: None))
    read_objective_metric(metrics, options.metric)
    return options.metric or next(iter(metrics))
