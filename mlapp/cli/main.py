"""The `mlapp` command: error handling around its subcommands."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from types import FrameType
from typing import Any, NoReturn

from mlapp.cli import output
from mlapp.cli.advised_commands import complete_advised_commands
from mlapp.cli.command_search import list_similar_commands
from mlapp.cli.plain_serve import parse_plain_serve_arguments, start_server
from mlapp.cli.result_stream import reserve_stdout
from mlapp.errors import MlappError, UsageError
from mlapp.printable_text import set_up_logging

TYPER_OPTIONS = frozenset({"--help", "--show-completion", "--install-completion"})
OS_ADVICE = {
    errno.EISDIR: "Give a file, not a folder.",
    errno.ENOENT: "Check the path, or create the folder.",
    errno.EEXIST: "Give a path that does not exist yet.",
    errno.ENOTDIR: "Check the path: a part of it is a file.",
    errno.EACCES: "Check the permissions, or give another path.",
    errno.EPERM: "Check the permissions, or give another path.",
    errno.EROFS: "Give a path that can be written.",
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ENOSPC: "Free some disk space, and run the command again.",
}


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. An error is two lines on stderr and exit code 1 or 2; the traceback only with `--debug`.

    Args:
        arguments: by default those of this process.
    """
    command_line = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in command_line
    terminations = _interrupt_on_sigterm()
    try:
        _dispatch_arguments([argument for argument in command_line if argument != "--debug"])
    except (KeyboardInterrupt, SystemExit) as end:  # typer exits on an interrupt, and on a closed stdout
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(141)
        sys.exit(143 if terminations else 130 if isinstance(end, KeyboardInterrupt) else end.code)
    except BrokenPipeError:
        sys.exit(141)
    except MlappError as error:
        if debug:
            raise
        output.print_error(complete_advised_commands(error, command_line))
        sys.exit(error.exit_code)
    except Exception as error:  # a bug or a library's error: a user sees two lines, too
        if debug:
            raise
        output.print_error(_explain_unexpected_error(error))
        sys.exit(1)


def _interrupt_on_sigterm() -> list[int]:
    """Make SIGTERM interrupt the command as Ctrl-C does, so that it cleans up. Servers set their own handler.

    Returns a list that receives each signal.
    """
    received: list[int] = []

    def interrupt_command(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default and threading.current_thread() is threading.main_thread():  # only it can set signal handlers
        signal.signal(signal.SIGTERM, interrupt_command)
    return received


def _dispatch_arguments(arguments: list[str]) -> None:
    set_up_logging()
    plain = parse_plain_serve_arguments(arguments)
    if plain is None:
        _run_with_typer(arguments)
    else:
        start_server(**plain)
        sys.exit(0)  # as typer does after each command


def _run_with_typer(arguments: list[str]) -> None:
    """Run a command through typer. Wrong use is an error of two lines, without the usage that click prints above it."""
    import typer  # slow to import, and not needed by `mlapp serve`

    from mlapp.cli.commands import cli

    wrong_use: Any = typer.BadParameter.__mro__[1]  # click's UsageError: newer versions of typer contain click
    try:
        with nullcontext() if _prints_typer_text(arguments) else reserve_stdout():
            result = cli(arguments, prog_name="mlapp", standalone_mode=False)
    except wrong_use as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(error.exit_code)
        path = error.ctx.command_path if error.ctx else "mlapp"
        raise UsageError(error.format_message(), _advise_on_wrong_use(error, path)) from error
    except typer.Abort:
        raise MlappError("The command was aborted.", "Run it again to continue.") from None
    sys.exit(result if isinstance(result, int) else 0)


def _prints_typer_text(arguments: list[str]) -> bool:
    """Whether the result is typer's own text, help or completion, which it prints to `sys.stdout`."""
    return "_MLAPP_COMPLETE" in os.environ or not TYPER_OPTIONS.isdisjoint(arguments)


def _advise_on_wrong_use(error: Any, path: str) -> str:
    """The second line of an error. `C=1` and `--C 1` look like a parameter without `-p`."""
    if namesakes := list_similar_commands(error):
        return f"Did you mean {' or '.join(f'`{name}`' for name in namesakes)}? Otherwise, see `{path} --help`."
    is_unknown_option = type(error).__name__ == "NoSuchOption" and not error.possibilities
    is_assignment = "extra argument" in error.message and "=" in error.message
    options = error.ctx.command.params if error.ctx else ()
    if (is_unknown_option or is_assignment) and any("-p" in option.opts for option in options):
        return f"Give a parameter of a stage as `{path} -p NAME=VALUE`. For the options, see `{path} --help`."
    return f"See `{path} --help`."


def _explain_unexpected_error(error: Exception) -> MlappError:
    """The error for an unexpected exception: a problem of the machine, or a bug in mlapp."""
    if isinstance(error, MemoryError):
        return MlappError("There is not enough memory.", "Read less data, or use a larger machine.")
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        todo = OS_ADVICE.get(error.errno or 0, "Check the disk space and the permissions, and try again.")
        return MlappError(f"{error.strerror or error}{where}.", todo)
    return MlappError(
        f"mlapp failed: {type(error).__name__}: {error}",
        "Run the command again with --debug, and report the traceback.",
    )
