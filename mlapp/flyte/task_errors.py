"""The error of a failed task for the user: the traceback of the user's function, and paths as in the project."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

import mlapp
from mlapp.errors import MlappError, UserCodeError


def find_task_user_error(error: MlappError) -> BaseException | None:
    """The exception that the user's function raised, with a traceback without mlapp's frames; None for other errors."""
    cause = error.__cause__ if isinstance(error, UserCodeError) else None
    return None if cause is None else cause.with_traceback(_strip_task_frames(cause.__traceback__))


def format_task_trace(error: MlappError) -> str:
    """The traceback of the user's function; empty for other errors."""
    cause = find_task_user_error(error)
    return "" if cause is None else shorten_task_paths("".join(traceback.format_exception(cause)).rstrip())


def shorten_task_paths(text: str) -> str:
    """A text with paths relative to the project, because the user's machine has the code in another folder."""
    return text.replace(f"{Path.cwd()}/", "")


def _strip_task_frames(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not mlapp's own."""
    own = str(Path(mlapp.__file__).parent)
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(own):
        trace = trace.tb_next
    return trace
