"""The errors that users see: what happened, and what to do."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mlapp.distribution import install_command
from mlapp.missing_columns import find_missing_columns


class MlappError(Exception):
    """An error that the user can fix, in two lines.

    `what` says what happened and names the file, field or function; `todo` says what to do.
    The command line prints both and exits with `exit_code`: 1 failed, 2 used wrongly.
    """

    exit_code = 1

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(f"{what}\n{todo}")
        self.what = what
        self.todo = todo


class UsageError(MlappError):
    """A command or function is used wrongly: an unknown name, a value of the wrong type."""

    exit_code = 2


class DeclarationError(MlappError):
    """An App is declared wrongly: a signature that does not fit its stage, a missing stage."""


class ConfigError(UsageError):
    """mlapp.yaml or an `MLAPP_…` variable has an unknown key or a value of the wrong type."""


class ProjectError(MlappError):
    """The project's code cannot be loaded: no app.py, a syntax error, no App in it."""


class DataError(MlappError):
    """The result of a stage or the content of a file cannot be used: empty, no target, not a table."""


class ModelError(MlappError):
    """A model cannot be saved or loaded."""


class StoreError(MlappError):
    """The model store cannot be read or written, or does not hold what was asked for."""


class MissingExtraError(MlappError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed.", f"Install them: {install_command(extra)}")
        self.extra = extra


@dataclass(frozen=True)
class Problem:
    """One problem of a request: where (`field`, and `row` from 0), and what."""

    detail: str
    field: str | None = None
    row: int | None = None


class InputError(MlappError):
    """Features that do not fit the model's schema.

    `problems` are the ones in the answer, at most ten; `found` are all, at most a thousand.
    """

    title = "The inputs do not fit the model"
    """The title of a server's answer."""

    def __init__(self, problems: Iterable[Problem], todo: str = "Send inputs that match the model's schema.") -> None:
        self.found = tuple(islice(problems, 1000))
        self.problems = self.found[:10]
        super().__init__("; ".join(problem.detail for problem in self.problems), todo)


class TruthError(InputError):
    """Truths that do not fit the model's predictions, or name none."""

    title = "The truths do not fit the model"


STAGE_ERRORS = (Exception, SystemExit)
"""Errors of a user's function. Includes SystemExit: `sys.exit()` must not end a training or a server silently."""


class UserCodeError(MlappError):
    """A function of the user raised. `__cause__` is the original error; the message names the user's line.

    Args:
        function: its title, as `Stage.title`.
        advice: what to do, if it is known. For a column that a table lacks, the message lists the table's columns.
    """

    def __init__(
        self, function: str, error: BaseException, root: Path | None = None, *, advice: str | None = None
    ) -> None:
        where = _find_user_error_line(error, root)
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        solution = [f"Fix it at {where}." if where else "", advice or _explain_missing_columns(error)]
        super().__init__(
            f"{function} raised {detail}", " ".join(filter(None, solution)) or "Run again with --debug to see where."
        )
        self.__cause__ = error


@contextmanager
def translate_user_errors(
    function: str, *, passed_on: tuple[type[BaseException], ...] = (), is_served: bool = False
) -> Iterator[None]:
    """Raise UserCodeError for what a user's function raises in this block.

    Args:
        function: its title, as `Stage.title`.
        passed_on: errors that are not translated, in addition to MlappError and MemoryError.
        is_served: a server runs the function. Then every other error is translated: a KeyboardInterrupt does not come
            from Ctrl-C, and would end the event loop.
    """
    unchanged: tuple[type[BaseException], ...] = (MlappError, MemoryError, *passed_on)
    translated: tuple[type[BaseException], ...] = (BaseException,) if is_served else STAGE_ERRORS
    try:
        yield
    except unchanged:
        raise
    except translated as error:
        raise UserCodeError(function, error) from error


def _find_user_error_line(error: BaseException, root: Path | None) -> str | None:
    """`file:line` of the innermost frame that belongs to the user rather than to a library."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_user_file(Path(frame.filename), root)]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else None


def _is_user_file(file: Path, root: Path | None) -> bool:
    libraries = (Path(__file__).parent, Path(traceback.__file__).parent)
    if {"site-packages", "dist-packages"} & set(file.parts) or any(file.is_relative_to(folder) for folder in libraries):
        return False
    return file.is_relative_to(root) if root else file.exists()


def _explain_missing_columns(error: BaseException) -> str:
    """The columns of the table that lacks a column, or an empty string if the error has another cause."""
    found = find_missing_columns(error)
    if found is None:
        return ""
    missing, columns = found
    nearest = suggest_nearest(missing[0], columns) if len(missing) == 1 else ""
    kind = "column or method" if isinstance(error, AttributeError) else "column"  # `df.append` was removed from pandas
    lacks = f"The table has no {kind} {f' and no {kind} '.join(map(repr, missing))}.{nearest} " if missing else ""
    return f"{lacks}Its columns are: {list_names(columns)}." if columns else lacks.rstrip()


def list_names(names: Iterable[object], most: int = 20) -> str:
    """The first names of a list, and the number of the others: `a, b and 44 more`."""
    texts = [str(name) for name in names]
    hidden = len(texts) - most
    return f"{', '.join(texts[:most])} and {hidden} more" if hidden > 0 else ", ".join(texts)


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name nearest to `name`, or an empty string."""
    folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return f" Did you mean '{folded[found[0]]}'?" if found else ""
