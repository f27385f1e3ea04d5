"""Which files of a project belong to its code: what git tracks and what it does not ignore, less `.dockerignore`."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from mlapp.bundle import secrets
from mlapp.bundle.bundle import BundleError
from mlapp.reporting import Reporter

LARGE = 100 * 1024**2
"""Bytes from which on a file of code is worth a warning."""

HUGE = 2 * 1024**3
"""Bytes from which on a file is shipped only when `image.include` names it."""

NEVER = (".git", ".mlapp", ".venv", "__pycache__", "*.egg-info")
"""Names of files and folders that are never part of the code. setuptools writes an egg-info into a folder that the
requirements name, so the first build would change what the second one bundles."""

SHOWN = 10
"""Files with secrets that an error names."""


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
    """The files and symbolic links that belong to the project in `root`, relative to it and sorted.

    Args:
        root: the project's folder; it need not be a git repository.
        include: globs of ignored files that belong all the same.
        leave_out: a folder that never belongs: the model store.
        dockerignore: whether what `.dockerignore` names does not belong.
        needed: files that nothing works without, as the app's: one with a secret is refused and not left out.
        refuse_tracked_secrets: whether a file with a secret that git tracks is refused, or belongs.
        warn: takes one line a file that is left out, or is suspiciously large.

    Raises:
        BundleError: git is missing, a file cannot be read, a name is not UTF-8, git tracks a file with a secret.
        MissingExtraError: detect-secrets is not installed.
    """
    included = {path.relative_to(root) for glob in include for path in _expand_glob(root, glob)}
    tracked, others = _list_git_files(root)
    dockerignored = _read_dockerignore(root) if dockerignore else lambda _: False
    found, refused = [], []
    for path in sorted(tracked | others | included):
        absolute = root / path
        if _is_generated(path) or (leave_out and absolute.is_relative_to(leave_out)):
            continue
        if path not in included and dockerignored(path):
            continue
        if not _is_shippable(root, path, path in included, warn):
            continue
        reason = None if path in included else _secret_in(root, path)
        if reason is None or (path in tracked and not refuse_tracked_secrets):
            found.append(path)
        elif path in tracked or path in needed:
            refused.append(f"{path} ({reason})")
        else:
            said = "" if reason == secrets.BY_NAME else f" ({reason})"
            warn(
                f"{path} looks like a secret{said} and is left out. "
                "To ship it, name it under image.include in mlapp.yaml."
            )
    if refused:
        raise BundleError(
            f"Secrets would be shipped: {'; '.join(refused[:SHOWN])}{', …' if len(refused) > SHOWN else ''}.",
            "Take them out of the files and of git, and renew them; give them to the server as environment variables. "
            "To leave files out, name them in .dockerignore; to ship them, under image.include in mlapp.yaml.",
        )
    return found


def _secret_in(root: Path, path: Path) -> str | None:
    """Why a file looks like a secret; a link says nothing that the file it names does not."""
    if (root / path).is_symlink():
        return None
    try:
        return secrets.reason_by_name(path) or secrets.reason_by_content(root / path)
    except FileNotFoundError:  # deleted in the meantime
        return None


def _is_generated(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in NEVER)


def _is_shippable(root: Path, path: Path, is_included: bool, warn: Reporter) -> bool:
    absolute = root / path
    try:
        path.as_posix().encode("utf-8")
    except UnicodeEncodeError:
        raise BundleError(f"The file name {os.fsencode(path)!r} is not UTF-8.", "Rename it, or ignore it.") from None
    if absolute.is_symlink():
        return _is_within(root, path, warn)
    if not absolute.is_file():
        return False  # tracked, but deleted
    size = absolute.stat().st_size
    if size >= HUGE and not is_included:
        warn(
            f"{path} has {size / 1024**3:.1f} GiB, which looks like a mistake, and is left out. "
            "Name it in .dockerignore, or, to ship it, under image.include in mlapp.yaml."
        )
        return False
    if size >= LARGE:
        warn(f"{path} has {size / 1024**2:.0f} MiB. If the server does not need it, name it in .dockerignore.")
    if not os.access(absolute, os.R_OK):
        raise BundleError(f"{path} cannot be read.", "Change its permissions, or name it in .dockerignore.")
    return True


def _is_within(root: Path, path: Path, warn: Reporter) -> bool:
    target = Path(os.path.realpath(root / path))
    if not target.is_relative_to(os.path.realpath(root)):
        warn(f"{path} is a link that leaves the project, to {target}, and is left out. Copy the file in.")
        return False
    if not target.exists():
        warn(f"{path} is a link to {os.readlink(root / path)}, which does not exist, and is left out.")
        return False
    return True


def _expand_glob(root: Path, glob: str) -> list[Path]:
    found = [file for path in root.glob(glob) for file in _walk_files(path)]
    if not found:
        raise BundleError(f"image.include: nothing matches '{glob}' in {root}.", "Fix the glob in mlapp.yaml.")
    return [file for file in found if file.is_symlink() or file.is_file()]


def _walk_files(path: Path) -> Iterable[Path]:
    """A link to a folder is one file, as git has it: what it names may hold the link itself."""
    return path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]


def _list_git_files(root: Path) -> tuple[set[Path], set[Path]]:
    """The tracked files, and the files that are neither tracked nor ignored."""
    if _run_git(root, ["rev-parse", "--is-inside-work-tree"], check=False).strip() == b"true":
        tracked = _split_paths(_run_git(root, ["ls-files", "-z", "--cached", "--recurse-submodules"]))
        return tracked, _split_paths(_run_git(root, ["ls-files", "-z", "--others", "--exclude-standard"])) - tracked
    with tempfile.TemporaryDirectory() as folder:  # an empty repository elsewhere, for git's own reading of .gitignore
        _run_git(Path(folder), ["init", "--quiet", "--bare", "."])
        options = [f"--git-dir={folder}", f"--work-tree={root}"]
        return set(), _split_paths(_run_git(root, [*options, "ls-files", "-z", "--others", "--exclude-standard"]))


def _split_paths(listing: bytes) -> set[Path]:
    return {Path(os.fsdecode(name)) for name in listing.split(b"\0") if name and not name.endswith(b"/")}


def _run_git(folder: Path, arguments: list[str], check: bool = True) -> bytes:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60)  # noqa: S603
    except FileNotFoundError:
        raise BundleError("git is not installed; it tells which files belong to the project.", "Install git.") from None
    if check and done.returncode:
        reason = os.fsdecode(done.stderr).strip().partition("\n")[0]
        raise BundleError(f"git cannot list the files of {folder}: {reason}", "Fix the repository.")
    return done.stdout


def _read_dockerignore(root: Path) -> Callable[[Path], bool]:
    """Whether `.dockerignore` leaves a path out, by Docker's own rules: patterns from the root, the last match wins."""
    file = root / ".dockerignore"
    if not file.is_file():
        return lambda path: False
    rules = []
    for line in file.read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            negated = pattern.startswith("!")
            rules.append((_compile_pattern(pattern.lstrip("!").strip().strip("/")), negated))

    def is_ignored(path: Path) -> bool:
        ignored = False
        for expression, negated in rules:
            parts = PurePosixPath(path).parts
            if any(expression.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
                ignored = not negated
        return ignored

    return is_ignored


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's filepath.Match, with `**` for any number of folders, as an expression for the whole path."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", os.path.normpath(pattern))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts))
