"""A bundle's requirements as a virtual environment for the image, laid out on this machine from wheels alone."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from mlapp.bundle import Bundle, uv
from mlapp.bundle.bundle import REQUIREMENTS, WHEELS
from mlapp.bundle.lock import is_for, parse
from mlapp.config import Image
from mlapp.images import bytecode
from mlapp.images.engine import ImageError
from mlapp.images.plan import PLATFORMS, VENV

Warn = Callable[[str], None]

LOCAL_TRACES = ("direct_url.json", "uv_cache.json", "uv_build.json", "REQUESTED")
"""Files of a dist-info that say how it was installed here: they name this machine's paths or its time."""


def lay_out(bundle: Bundle, platform: str, home: str, folder: Path, warn: Warn) -> None:
    """Make `folder` the virtual environment that the image has at /opt/venv.

    It is uv's own layout on this machine, with hard links into its cache: nothing is downloaded twice, no code of a
    package runs, and the platform may be another than this machine's.

    Args:
        platform: as linux/arm64.
        home: the folder of the base image's Python, as /usr/local/bin.
        warn: takes a line about what is worth a look.

    Raises:
        ImageError: a package has no wheel for the platform and cannot be built. UvError: the index does not answer.
    """
    python = bundle.manifest.python
    packages = folder / "lib" / f"python{python}" / "site-packages"
    packages.mkdir(parents=True)
    _install(bundle, platform, packages, warn)
    for info in packages.glob("*.dist-info"):
        for name in LOCAL_TRACES:
            (info / name).unlink(missing_ok=True)
    _move_scripts(packages, folder / "bin")
    (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n")
    for name in ("python", "python3", f"python{python}"):
        (folder / "bin" / name).symlink_to(f"{home}/python{python}")
    compiler = interpreter(python, bundle.settings.image)
    if compiler is None:
        warn(
            f"There is no Python {python} here to compile bytecode with: the image starts more slowly. "
            f"Install it, or set image.python to {'.'.join(map(str, sys.version_info[:2]))}."
        )
        return
    bytecode.compile_packages(packages, f"{VENV}/lib/python{python}/site-packages", compiler)


def interpreter(python: str, image: Image) -> str | None:
    """A Python of this minor version on this machine; None when there is none."""
    if python == "{}.{}".format(*sys.version_info):
        return sys.executable
    try:
        options = ["python", "find", python, "--no-python-downloads", "--no-project"]
        return uv.run(options, folder=Path.cwd(), image=image, doing="Finding Python").strip() or None
    except uv.UvError:
        return None


def _install(bundle: Bundle, platform: str, target: Path, warn: Warn) -> None:
    """Install the wheels; what has none is built here, if it is pure Python."""
    machine = PLATFORMS[platform]
    source: set[str] = set()
    while True:
        try:
            _run_uv(bundle, platform, target, source)
            break
        except uv.UvError as error:
            missing = re.search(r"([\w.-]+)==(\S+) has no (?:usable |compatible )?wheels", error.detail)
            needed = {
                package.name
                for package in parse((bundle.folder / REQUIREMENTS).read_text())
                if is_for(package, bundle.manifest.python, machine)
            }
            if missing is None or missing.group(1) in source or missing.group(1) not in needed:
                raise
            source.add(missing.group(1))
            warn(f"{missing.group(1)} {missing.group(2)} has no wheel for {platform}: building it from its source.")
    for name in sorted(source):
        _require_pure(target, name, platform)


def _run_uv(bundle: Bundle, platform: str, target: Path, source: set[str]) -> None:
    arguments = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(target)]
    arguments += ["--python-version", bundle.manifest.python]
    arguments += ["--python-platform", f"{PLATFORMS[platform]}-manylinux_2_28"]
    arguments += ["--only-binary", ":all:"] if not source else []
    for name in sorted(source):
        arguments += ["--no-binary", name]
    if source:
        allowed = {package.name for package in parse((bundle.folder / REQUIREMENTS).read_text())} - source
        for name in sorted(allowed):
            arguments += ["--only-binary", name]
    arguments += ["--requirements", REQUIREMENTS]
    shutil.rmtree(target)
    target.mkdir()
    uv.run(
        arguments,
        folder=bundle.folder,
        image=bundle.settings.image,
        doing=f"Fetching the dependencies for {platform}",
    )


def _require_pure(packages: Path, name: str, platform: str) -> None:
    """A package built on this machine is right for the image only when it holds no compiled code."""
    for info in packages.glob("*.dist-info"):
        if re.sub(r"[-_.]+", "-", info.name.split("-")[0]).lower() == name:
            wheel = (info / "WHEEL").read_text()
            if "Root-Is-Purelib: true" in wheel:
                return
    raise ImageError(
        f"{name} has no wheel for {platform}, and its source holds code to compile.",
        f"Choose a version of {name} that has one, or compile it in a Dockerfile of yours: mlapp eject dockerfile.",
    )


def _move_scripts(packages: Path, target: Path) -> None:
    """Move the commands to where the image's PATH finds them, with its Python in their first line."""
    target.mkdir()
    source = packages / "bin"
    for script in sorted(source.iterdir()) if source.is_dir() else []:
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.split(b"\n", 1)[0]:
            content = b"\n".join([f"#!{VENV}/bin/python".encode(), content.split(b"\n", 1)[1]])
        moved = target / script.name
        moved.write_bytes(content)
        moved.chmod(0o755)
    if source.is_dir():
        shutil.rmtree(source)
    for record in packages.glob("*.dist-info/RECORD"):
        _rewrite_record(record)


def _rewrite_record(record: Path) -> None:
    """Bring a RECORD in line with what was moved and removed. The file may be a link into uv's cache: replace it."""
    rows = []
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        if row[0].startswith("bin/"):
            row = [f"../../../{row[0]}", "", ""]
        if row[0].rpartition("/")[2] not in LOCAL_TRACES:
            rows.append(row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    record.unlink()
    record.write_text(text.getvalue(), encoding="utf-8")


def fingerprint(bundle: Bundle) -> str:
    """What the dependencies are, in hexadecimal digits: the locked requirements and the wheels in the bundle."""
    files = bundle.manifest.files
    parts = [f"{name} {file.sha256}" for name, file in files.items() if name.startswith((REQUIREMENTS, f"{WHEELS}/"))]
    return hashlib.sha256("\n".join([*parts, bundle.manifest.python, sys.version]).encode()).hexdigest()
