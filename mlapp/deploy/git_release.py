"""`mlapp deploy --to-git`: a release as a commit, which Argo CD or Flux then applies.

mlapp replaces and removes only files with `MARK`. If another push comes first, mlapp commits again on top of it, unless
that push changed the same folder.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlapp.deploy.cluster.document_files import group_documents_by_file, strip_owner_labels
from mlapp.deploy.target import DeployError, Shipment
from mlapp.deploy.yaml_dump import dump_yaml
from mlapp.errors import UsageError
from mlapp.provenance import query_git
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder

MARK = "# Written by `mlapp deploy --to-git`; the next deploy replaces this file."
MAX_ATTEMPTS = 10
"""Maximum number of pushes. The deploy fails if another push comes first each time."""

RACE_MESSAGES = ("non-fast-forward", "fetch first", "cannot lock ref", "failed to update ref", "stale info")
"""Git's messages if another push came first."""


@dataclass(frozen=True)
class GitRelease:
    """A commit with a release.

    Args:
        repository: the repository, as the user named it.
        branch: the branch.
        path: the folder of the release.
        commit: the commit with the release; the previous commit if nothing changed.
        changed: whether there is a new commit.
        pushed: False if the repository is a folder with the branch checked out.
    """

    repository: str
    branch: str
    path: str
    commit: str
    changed: bool
    pushed: bool


def choose_release_folder(app: str, environment: str | None) -> str:
    """The folder of an app's releases: `digits/production`; `digits` without an environment."""
    return f"{app}/{environment}" if environment else app


def commit_release(
    documents: list[dict[str, Any]],
    shipment: Shipment,
    repository: str,
    path: str,
    *,
    branch: str | None = None,
    progress: Reporter,
) -> GitRelease:
    """Write the documents into the folder `path` of a repository, commit, and push.

    Args:
        repository: a URL or a folder. mlapp pushes to a bare repository, and commits in a folder with a work tree.
        branch: by default the repository's default branch.

    Raises:
        UsageError: `path` is outside of the repository. DeployError: Git is missing or refuses; an existing file is not
            mlapp's; another push changed the same folder.
    """
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or ".git" in PurePosixPath(path).parts:
        raise UsageError(
            f"--git-path {path} is not a relative path inside the repository.", "Give a path such as digits/production."
        )
    texts = {name: f"{MARK}\n{dump_yaml(strip)}" for name, strip in _name_git_release_documents(documents).items()}
    message = write_release_message(shipment, path)
    folder = Path(repository).expanduser()
    if (folder / ".git").exists():
        return _commit_release_folder(folder.resolve(), repository, path, branch, texts, message)
    with open_temporary_folder("git") as temporary:
        clone = temporary / "clone"
        source = str(folder.resolve()) if folder.exists() else repository
        _run_git(temporary, "clone", "--quiet", "--no-tags", "--", source, str(clone))
        branch = branch or _run_git(clone, "symbolic-ref", "--short", "HEAD")
        is_empty = not _run_git(clone, "branch", "--remotes")
        old_hash: str | None = None
        for _ in range(MAX_ATTEMPTS):
            if not is_empty:
                _check_out_release_branch(clone, repository, branch)
            new_hash = _hash_release_folder(clone, path)
            if old_hash is not None and new_hash != old_hash:
                raise DeployError(
                    f"Someone else changed {path} in {repository} at the same time; nothing was pushed.",
                    "Review their commit; deploy again to replace it.",
                )
            old_hash = new_hash
            changed = _write_release_commit(clone, path, texts, message)
            if changed and not _push_release_commit(clone, repository, branch):
                progress("another push came first: retrying on top of it")
                is_empty = False
                continue
            return GitRelease(repository, branch, path, _run_git(clone, "rev-parse", "HEAD"), changed, True)
    raise DeployError(
        f"Others pushed to {repository} {MAX_ATTEMPTS} times in a row; the release was not pushed.", "Deploy again."
    )


def write_release_message(shipment: Shipment, path: str) -> str:
    """The commit message; its last lines are trailers, readable by `git interpret-trailers`."""
    version = f"version {shipment.model_version}" if shipment.model_version else "another image"
    trailers = {
        "Image": shipment.image,
        "Model-Version": shipment.model_version,
        "Code-Revision": shipment.code_revision,
    }
    lines = [f"{name}: {value}" for name, value in trailers.items() if value]
    return f"Deploy {version} of {shipment.app}\n\nTo {path}.\n\n" + "\n".join(lines)


def _name_git_release_documents(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if any("apiVersion" not in document for document in documents):
        raise UsageError("This target has no Kubernetes objects.", "Give --target k8s, or leave out --to-git.")
    return group_documents_by_file([strip_owner_labels(document) for document in documents])


def _commit_release_folder(
    folder: Path, repository: str, path: str, branch: str | None, texts: dict[str, str], message: str
) -> GitRelease:
    """Commit in the user's own clone without pushing."""
    current = _run_git(folder, "symbolic-ref", "--short", "HEAD")
    if branch not in (None, current):
        raise DeployError(
            f"{repository} is on branch {current}, not on {branch}.", f"Switch to it: git switch {branch}"
        )
    if _run_git(folder, "status", "--porcelain", "--", path):
        raise DeployError(f"{repository} has uncommitted changes in {path}.", "Commit or undo them.")
    changed = _write_release_commit(folder, path, texts, message)
    return GitRelease(repository, current, path, _run_git(folder, "rev-parse", "HEAD"), changed, False)


def _check_out_release_branch(clone: Path, repository: str, branch: str) -> None:
    """Reset the clone to the current state of the branch."""
    _run_git(clone, "fetch", "--quiet", "origin")
    if not _run_git(clone, "branch", "--remotes", "--list", f"origin/{branch}"):
        raise DeployError(f"{repository} has no branch {branch}.", "Create it there, or give another --git-branch.")
    _run_git(clone, "checkout", "--quiet", "--force", "-B", branch, f"origin/{branch}")
    _run_git(clone, "reset", "--quiet", "--hard", f"origin/{branch}")


def _write_release_commit(root: Path, path: str, texts: dict[str, str], message: str) -> bool:
    """Replace mlapp's files in the folder and commit them; returns whether anything changed."""
    folder = root / path
    if folder.is_symlink() or not folder.resolve().is_relative_to(root.resolve()):
        raise DeployError(f"{path} is a link to a place outside the repository.", "Give another --git-path.")
    own_files = set(_list_released_files(folder))
    for name in texts:
        if os.path.lexists(folder / name) and name not in own_files:  # a link can point outside the repository
            raise DeployError(
                f"{path}/{name} already exists, and mlapp did not write it.", "Remove it, or give another --git-path."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in own_files - set(texts):
        (folder / name).unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    names = [f"{path}/{name}" for name in sorted(own_files | set(texts))]
    _run_git(root, "add", "--all", "--", *names)
    if not _run_git(root, "status", "--porcelain", "--", *names):
        return False
    author = (
        [] if query_git(root, "config", "user.email") else ["-c", "user.name=mlapp", "-c", "user.email=mlapp@localhost"]
    )
    _run_git(root, *author, "commit", "--quiet", "--only", f"--message={message}", "--", *names)
    return True


def _list_released_files(folder: Path) -> Iterator[str]:
    for file in folder.glob("*.yaml"):
        if file.is_file() and not file.is_symlink():
            with file.open(encoding="utf-8", errors="replace") as stream:
                if stream.readline().rstrip("\n") == MARK:
                    yield file.name


def _hash_release_folder(clone: Path, path: str) -> str:
    """The hash of the folder's content at the branch's head; empty when it does not exist."""
    return query_git(clone, "rev-parse", "--verify", "--quiet", f"HEAD:{path}")


def _push_release_commit(clone: Path, repository: str, branch: str) -> bool:
    """Push; False if somebody else pushed first.

    Raises:
        DeployError: the push is refused.
    """
    try:
        _run_git(clone, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    except DeployError as error:
        if any(text in error.what for text in RACE_MESSAGES):
            return False
        raise DeployError(f"{repository} refused the push: {error.what}", error.todo) from None
    return True


def _run_git(root: Path, *arguments: str) -> str:
    """The output of Git.

    Raises:
        DeployError: Git is not installed, or fails.
    """
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(["git", *arguments], cwd=root, env=variables, capture_output=True, text=True)  # noqa: S603, S607
    except OSError as error:
        raise DeployError(f"Git cannot be run: {error}", "Install git.") from None
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("hint:")]
        reason = " ".join(lines) or f"exit code {result.returncode}"
        raise DeployError(f"git {arguments[0]}: {reason}", "Check the address and your write permission.")
    return result.stdout.strip()
