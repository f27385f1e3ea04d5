"""Finds the files of a project's code: those that git does not ignore, except for those in `.dockerignore`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from mlapp.bundle import secrets
from mlapp.bundle.bundle import BundleError
from mlapp.errors import list_names
from mlapp.path_patterns import compile_path_pattern
from mlapp.project_outputs import read_project_outputs
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder

LARGE = 10 * 1024**2
"""Size in bytes from which a file causes a warning."""

HUGE = 2 * 1024**3
"""Size in bytes from which a file is left out unless `image.include` names it."""

NEVER = (".git", ".mlapp", ".venv", "__pycache__", "*.egg-info")
"""Names of files and folders that are never part of the code. setuptools writes an egg-info to folders in the
requirements, so that one build would change the content of the next."""

MAX_NAMES = 10
"""Maximum number of files with secrets in an error."""


def find_project_files(
    root: Path,
    *,
    include: Iterable[str] = (),
    leave_out: Path | None = None,
    dockerignore: bool = True,
    needed: Collection[Path] = (),
    refuse_tracked_secrets: bool = True,
    warn: Reporter,
) -> list[Path]:
    """The files and symbolic links of the project in `root`, as sorted relative paths.

    Args:
        root: the project's folder; it does not have to be a git repository.
        include: globs of ignored files to include anyway.
        leave_out: a folder to always exclude: the model store.
        dockerignore: whether to exclude the files in `.dockerignore`.
        needed: essential files, such as the app's. If one has a secret, this is an error instead of leaving it out.
        refuse_tracked_secrets: whether a secret in a file that git tracks is an error; otherwise, the file is included.
        warn: receives one line for each file that is left out or very large.

    Raises:
        BundleError: git is missing, a file is unreadable, a name is not UTF-8, or git tracks a file with a secret.
        MissingExtraError: detect-secrets is not installed.
    """
    included = {path.relative_to(root) for glob in include for path in _expand_project_file_glob(root, glob)}
    tracked, others = _list_git_files(root)
    dockerignored = _read_dockerignore(root) if dockerignore else lambda _: False
    outputs = read_project_outputs(root) & others - included - set(needed)
    if outputs:
        warn(
            f"Written by mlapp and left out: {list_names(sorted(outputs), 3)}. "
            "To ship a file, list it under image.include in mlapp.yaml."
        )
    files, refused = [], []
    for path in sorted((tracked | others | included) - outputs):
        absolute = root / path
        if _is_generated_file(path) or (leave_out and absolute.is_relative_to(leave_out)):
            continue
        if path not in included and dockerignored(path):
            continue
        if not _is_shippable_file(root, path, path in included, warn):
            continue
        reason = None if path in included else _find_secret_reason(root, path)
        if reason is None or (path in tracked and not refuse_tracked_secrets):
            files.append(path)
        elif path in tracked or path in needed:
            refused.append(f"{path} ({reason})")
        else:
            detail = "" if reason == secrets.BY_NAME else f" ({reason})"
            warn(
                f"{path} looks like a secret{detail} and is left out. "
                "To ship it, list it under image.include in mlapp.yaml."
            )
    if refused:
        raise _make_secrets_error(refused)
    return files


def _make_secrets_error(refused: list[str]) -> BundleError:
    return BundleError(
        f"The bundle would contain secrets: {'; '.join(refused[:MAX_NAMES])}"
        f"{', …' if len(refused) > MAX_NAMES else ''}.",
        "Remove them from the files and git, and rotate them; pass them to the server as environment variables. "
        "To exclude files, list them in .dockerignore; to ship them, under image.include in mlapp.yaml.",
    )


def _find_secret_reason(root: Path, path: Path) -> str | None:
    """Why a file looks like a secret, or None. Links are skipped, because their targets are checked."""
    if (root / path).is_symlink():
        return None
    try:
        return secrets.detect_secret_by_name(path) or secrets.detect_secret_by_content(root / path)
    except FileNotFoundError:  # deleted in the meantime
        return None


def _is_generated_file(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in NEVER)


def _is_shippable_file(root: Path, path: Path, is_included: bool, warn: Reporter) -> bool:
    absolute = root / path
    try:
        path.as_posix().encode("utf-8")
    except UnicodeEncodeError:
        raise BundleError(
            f"The file name {os.fsencode(path)!r} is not UTF-8.", "Rename it, or list it in .gitignore."
        ) from None
    if absolute.is_symlink():
        return _is_within_project(root, path, warn)
    if not absolute.is_file():
        return False  # tracked by git, but deleted
    size = absolute.stat().st_size
    if size >= HUGE and not is_included:
        warn(
            f"{path} has {size / 1024**3:.1f} GiB, which looks like a mistake, and is left out. "
            "List it in .dockerignore or, to ship it, under image.include in mlapp.yaml."
        )
        return False
    if size >= LARGE:
        warn(f"{path} has {size / 1024**2:.0f} MiB. If the server does not need it, list it in .dockerignore.")
    if not os.access(absolute, os.R_OK):
        raise BundleError(f"{path} cannot be read.", "Change its permissions, or list it in .dockerignore.")
    return True


def _is_within_project(root: Path, path: Path, warn: Reporter) -> bool:
    target = Path(os.path.realpath(root / path))
    if not target.is_relative_to(os.path.realpath(root)):
        warn(f"{path} is a link to {target}, outside the project, and is left out. Copy the file into the project.")
        return False
    if not target.exists():
        warn(f"{path} is a link to {os.readlink(root / path)}, which does not exist, and is left out.")
        return False
    return True


def _expand_project_file_glob(root: Path, glob: str) -> list[Path]:
    files = [file for path in root.glob(glob) for file in _walk_project_files(path)]
    if not files:
        raise BundleError(f"image.include: nothing matches '{glob}' in {root}.", "Fix the glob in mlapp.yaml.")
    return [file for file in files if file.is_symlink() or file.is_file()]


def _walk_project_files(path: Path) -> Iterable[Path]:
    """All paths in a folder. As in git, a link to a folder is a file, because its target can contain the link."""
    return path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]


def _list_git_files(root: Path) -> tuple[set[Path], set[Path]]:
    """The tracked files, and the untracked files that are not ignored."""
    if _run_git_in_project(root, ["rev-parse", "--is-inside-work-tree"], check=False).strip() == b"true":
        tracked = _split_git_output(_run_git_in_project(root, ["ls-files", "-z", "--cached", "--recurse-submodules"]))
        return tracked, _split_git_output(
            _run_git_in_project(root, ["ls-files", "-z", "--others", "--exclude-standard"])
        ) - tracked
    with open_temporary_folder("git") as folder:  # an empty repository, so that git evaluates .gitignore
        _run_git_in_project(folder, ["init", "--quiet", "--bare", "."])
        options = [f"--git-dir={folder}", f"--work-tree={root}"]
        return set(), _split_git_output(
            _run_git_in_project(root, [*options, "ls-files", "-z", "--others", "--exclude-standard"])
        )


def _split_git_output(listing: bytes) -> set[Path]:
    return {Path(os.fsdecode(name)) for name in listing.split(b"\0") if name and not name.endswith(b"/")}


def _run_git_in_project(folder: Path, arguments: list[str], check: bool = True) -> bytes:
    command = ["git", *arguments]
    try:
        process = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)  # noqa: S603
    except FileNotFoundError:
        raise BundleError("git is not installed; mlapp needs it to list the project's files.", "Install git.") from None
    if check and process.returncode:
        reason = os.fsdecode(process.stderr).strip().partition("\n")[0]
        raise BundleError(
            f"git cannot list the files of {folder}: {reason}", "Run `git status` there, and fix what it reports."
        )
    return process.stdout


def _read_dockerignore(root: Path) -> Callable[[Path], bool]:
    """A predicate for excluded paths, by Docker's rules: patterns start at the root, and the last match wins."""
    file = root / ".dockerignore"
    if not file.is_file():
        return lambda path: False
    rules = []
    for line in file.read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            is_negated = pattern.startswith("!")
            path = os.path.normpath(pattern.lstrip("!").strip().strip("/"))
            rules.append((compile_path_pattern(path), is_negated))

    def is_ignored(path: Path) -> bool:
        result = False
        for expression, is_negated in rules:
            parts = PurePosixPath(path).parts
            if any(expression.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
                result = not is_negated
        return result

    return is_ignored
