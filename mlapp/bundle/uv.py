"""Runs uv, which resolves, locks and installs packages, and shortens its errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mlapp.bundle.bundle import BundleError
from mlapp.config import Image
from mlapp.env_vars import REFERENCE
from mlapp.errors import ConfigError, MissingExtraError

MAX_LENGTH = 900
"""Maximum number of characters of uv's output in an error."""


class UvError(BundleError):
    """uv failed; `detail` is its full output without credentials."""

    def __init__(self, what: str, todo: str, detail: str) -> None:
        super().__init__(what, todo)
        self.detail = detail


def run_uv(arguments: Sequence[str], *, folder: Path, image: Image, activity: str) -> str:
    """Run uv in `folder` with the indexes in `image:`; returns its output.

    Credentials are passed only in the environment, never on a command line or in a file.

    Args:
        activity: the start of an error message, such as "Resolving requirements.txt".

    Raises:
        MissingExtraError: uv is not installed. ConfigError: an index needs an unset variable. UvError: uv failed.
    """
    environ = {**os.environ, **make_index_variables(image), "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    command = [_find_uv(), *arguments]
    process = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)  # noqa: S603
    if process.returncode:
        output = process.stderr
        for name in REFERENCE.findall(" ".join([image.index_url or "", *image.extra_index_urls])):
            if os.environ[name]:
                output = output.replace(os.environ[name], "****")
        raise _explain_uv_error(activity, output)
    return process.stdout


def read_uv_version() -> str:
    """uv's version."""
    return subprocess.run([_find_uv(), "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def _find_uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        program = shutil.which("uv")
        if program is None:
            raise MissingExtraError("Building images", "docker") from None
        return program


def make_index_variables(image: Image) -> dict[str, str]:
    """uv's environment variables for the indexes, including credentials.

    Raises:
        ConfigError: an index needs an unset variable.
    """
    environ = {}
    if image.index_url:
        environ["UV_DEFAULT_INDEX"] = _expand_index_url(image.index_url)
    if image.extra_index_urls:
        environ["UV_INDEX"] = " ".join(map(_expand_index_url, image.extra_index_urls))
    return environ


def add_indexes(image: Image, text: str) -> Image:
    """`image:` extended by the indexes in a requirements file."""
    url, extra = image.index_url, list(image.extra_index_urls)
    for option, index_url in re.findall(r"^(--index-url|--extra-index-url) (\S+)$", text, re.MULTILINE):
        if option == "--index-url":
            url = url or index_url
        elif _strip_credentials(index_url) not in map(_strip_credentials, extra):  # the setting's URL can contain them
            extra.append(index_url)
    return msgspec.structs.replace(image, index_url=url, extra_index_urls=extra)


def _strip_credentials(url: str) -> str:
    """An index's URL without credentials."""
    return re.sub(r"//[^/]*@", "//", url).rstrip("/")


def _expand_index_url(url: str) -> str:
    def expand_variable(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise ConfigError(
                f"The package index {url} needs the environment variable {name}, which is not set.",
                f"Set it: export {name}=….",
            )
        return os.environ[name]

    return REFERENCE.sub(expand_variable, url)


def _explain_uv_error(activity: str, output: str) -> UvError:
    text = re.sub(r"\s*\n\s*(?:[╰─▶│]+\s*)*", "\n", output.replace("×", "error:")).strip()
    lines = [line for line in text.splitlines() if not line.startswith(("warning:", "Resolved", "Using", "Prepared"))]
    lines = _strip_uv_traceback(lines)
    flat = " ".join(lines)
    conflict = re.search(r"Because .*", flat)
    if conflict:
        reason = re.split(r"\bhint:", conflict.group())[0].strip()
        missing = re.search(r"Because (\S+) was not found in the package registry", reason)
        if missing:
            todo = "Check the spelling of its name. If another index has it, set image.index_url in mlapp.yaml."
            return UvError(f"{activity}: {missing.group(1)} was not found in the package index.", todo, output)
        return UvError(f"{activity}: {_shorten_uv_text(reason)}", "Change one of the versions named above.", output)
    if re.search(r"Failed to fetch|error sending request|Could not connect|dns error", flat):
        url = re.search(r"https?://\S+", flat)
        status = re.search(r"HTTP status \w+ \w+ \((\d+ [\w ]+)\)", flat)
        reason = status.group(1) if status else lines[-1].partition("cause: ")[2] or lines[-1]
        todo = "Check the network and image.index_url in mlapp.yaml, and its credentials."
        return UvError(f"{activity}: {url.group().rstrip('`,)') if url else 'the index'}: {reason}", todo, output)
    reason = "; ".join(line.removeprefix("error: ").removeprefix("cause: ") for line in lines)
    return UvError(f"{activity}: {_shorten_uv_text(reason)}", "Fix the requirement named above.", output)


def _strip_uv_traceback(lines: list[str]) -> list[str]:
    """The error at the end of a build backend's traceback."""
    frames = [number for number, line in enumerate(lines) if line.startswith('File "')]
    if not frames:
        return lines
    code_lines = 0 if '"<' in lines[frames[-1]] else 1  # skip the line of code, which "<string>" lacks
    ends = [line for line in lines[frames[-1] + 1 + code_lines :] if line.strip("^~ ")]
    return [*(line for line in lines[: frames[0]] if not line.startswith("Traceback")), *ends]


def _shorten_uv_text(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 2].rstrip() + " …"
