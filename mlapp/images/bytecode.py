"""Reproducible bytecode for an image, compiled on this machine.

Python finds a .pyc by name and accepts it if its magic number matches Python's minor version, on any machine. The files
are "unchecked hash" files of PEP 552: they contain no time, and Python uses them without reading the source. Each
package is compiled in a separate process, in order, because marshal's output depends on earlier work of the process.
The user's cache keeps the result, so that each package is compiled once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

from mlapp.bundle import Bundle, uv
from mlapp.config import Image
from mlapp.env_vars import find_user_cache
from mlapp.images.hard_links import hard_link_or_copy
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder

COMPILER = """
import _imp, importlib.util, sys
from importlib._bootstrap_external import _code_to_hash_pyc
key = int.from_bytes(importlib.util.MAGIC_NUMBER, "little")
parts = iter(sys.stdin.buffer.read().split(b"\\0")[:-1])
for source, target, shown in zip(parts, parts, parts):
    with open(source, "rb") as file:
        text = file.read()
    try:
        code = compile(text, shown.decode(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        continue
    try:
        with open(target, "wb") as file:
            file.write(_code_to_hash_pyc(code, _imp.source_hash(key, text), False))
    except OSError as error:
        print(error.errno, target.decode())
        sys.exit(1)
"""
"""Reads source, target and the path for tracebacks, each NUL-terminated. Skips files that do not compile.

If a file cannot be written, it prints the error's number and the file.
"""

FORMAT = "1"
TESTS = ("tests", "test")


def compile_package_bytecode(packages: Path, image_path: str, python: str) -> None:
    """Write the bytecode of all distributions in the site-packages folder `packages` next to their sources.

    Args:
        image_path: the folder's path in the image.
        python: an interpreter of the image's minor version.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for future in start_bytecode_compilation(pool, packages, image_path, python):
            future.result()


def start_bytecode_compilation(pool: Executor, packages: Path, image_path: str, python: str) -> list[Future[None]]:
    """As `compile_package_bytecode`, in threads of `pool`: one future per distribution."""
    tag, version = _read_bytecode_tag(python), _read_bytecode_version(python)
    # Largest first, so that no processor is idle for long at the end.
    records = sorted(packages.glob("*.dist-info/RECORD"), key=lambda record: -record.stat().st_size)
    return [
        pool.submit(_compile_distribution_bytecode, record, packages, image_path, python, tag, version)
        for record in records
    ]


def compile_bytecode_files(files: list[Path], root: Path, image_path: str, python: str) -> None:
    """Write the bytecode of `files`, which are relative to `root`. In the image, `root` is at `image_path`."""
    _compile_bytecode_to_folder(files, root, root, image_path, python, _read_bytecode_tag(python))


def _compile_distribution_bytecode(
    record: Path, packages: Path, image_path: str, python: str, tag: str, version: str
) -> None:
    record_text = record.read_text(encoding="utf-8")
    names = [line.partition(",")[0].strip('"') for line in record_text.splitlines()]
    files = sorted(Path(name) for name in names if name.endswith(".py") and not set(Path(name).parts) & set(TESTS))
    if not files:
        return
    parts = (FORMAT, image_path, tag, version, record.parent.name, record_text)
    cached_folder = find_user_cache() / "bytecode" / hashlib.sha256(chr(0).join(parts).encode()).hexdigest()
    try:
        if not cached_folder.is_dir():
            cached_folder.parent.mkdir(parents=True, exist_ok=True)
            with open_temporary_folder("bytecode", cached_folder.parent) as folder:
                compiled = folder / "compiled"
                _compile_bytecode_to_folder(files, packages, compiled, image_path, python, tag)
                with contextlib.suppress(OSError):  # a concurrent build wrote the same bytes first
                    compiled.rename(cached_folder)
    except OSError:  # the cache is full or read-only
        _compile_bytecode_to_folder(files, packages, packages, image_path, python, tag)
    else:
        shutil.copytree(cached_folder, packages, copy_function=hard_link_or_copy, dirs_exist_ok=True)


def _compile_bytecode_to_folder(
    files: list[Path], root: Path, target: Path, image_path: str, python: str, tag: str
) -> None:
    parts: list[str | Path] = []
    for file in files:
        compiled = target / file.parent / "__pycache__" / f"{file.stem}.{tag}.pyc"
        compiled.parent.mkdir(parents=True, exist_ok=True)
        parts += [root / file, compiled, f"{image_path}/{file.as_posix()}"]
    input_bytes = b"".join(os.fsencode(part) + b"\0" for part in parts)
    # -I and -S: ignore this machine's environment and site-packages.
    variables = {"PYTHONHASHSEED": "0"}
    result = subprocess.run([python, "-I", "-S", "-c", COMPILER], input=input_bytes, capture_output=True, env=variables)  # noqa: S603
    if result.returncode:
        number, _, failed_file = os.fsdecode(result.stdout).strip().partition(" ")
        if number.isdecimal():
            raise OSError(int(number), os.strerror(int(number)), failed_file)
        raise subprocess.CalledProcessError(result.returncode, python, result.stdout, result.stderr)


@cache
def _read_bytecode_tag(python: str) -> str:
    """The cache tag of a Python, such as cpython-311."""
    if python == sys.executable:
        return str(sys.implementation.cache_tag)
    return _query_bytecode_python(python, "import sys; print(sys.implementation.cache_tag)")


@cache
def _read_bytecode_version(python: str) -> str:
    return sys.version if python == sys.executable else _query_bytecode_python(python, "import sys; print(sys.version)")


def _query_bytecode_python(python: str, code: str) -> str:
    return subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603


def find_bytecode_compiler(bundle: Bundle, warn: Reporter) -> str | None:
    """The Python of this machine that compiles the image's bytecode; None, with a warning, if it has none."""
    python = bundle.manifest.python
    interpreter = find_bytecode_interpreter(python, bundle.settings.image)
    if interpreter is None:
        warn(
            f"Without Python {python} on this machine, bytecode is not compiled, and the image starts more slowly. "
            f"Install it, or set image.python to {'.'.join(map(str, sys.version_info[:2]))}."
        )
    return interpreter


def find_bytecode_interpreter(python: str, image: Image) -> str | None:
    """A Python of this minor version on this machine, or None."""
    if python == "{}.{}".format(*sys.version_info):
        return sys.executable
    try:
        options = ["python", "find", python, "--no-python-downloads", "--no-project"]
        return uv.run_uv(options, folder=Path.cwd(), image=image, activity="Finding Python").strip() or None
    except uv.UvError:
        return None
