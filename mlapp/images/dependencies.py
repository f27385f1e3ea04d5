"""A bundle's requirements as a virtual environment for the image, created on this machine from wheels only."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from packaging.utils import canonicalize_name

from mlapp.bundle import Bundle, uv
from mlapp.bundle.bundle import REQUIREMENTS, WHEELS
from mlapp.bundle.requirement_lines import is_requirement_needed_on, parse_locked_requirement_lines
from mlapp.images import bytecode
from mlapp.images.base import Base, find_base_python
from mlapp.images.build_job import BuildJob
from mlapp.images.bytecode import find_bytecode_compiler
from mlapp.images.image_spec import PLATFORMS, VENV
from mlapp.images.source_builds import build_source_packages

NO_WHEEL = r"([\w.-]+)==\S+ has no (?:usable |compatible )?wheels"
NO_BUILD = r"Failed to build `([\w.-]+)=="
"""uv's message, with the package's name."""

LOCAL_TRACES = ("direct_url.json", "uv_cache.json", "uv_build.json", "REQUESTED")
"""Files of a dist-info with this machine's paths or times."""


def lay_out_dependencies(job: BuildJob, base: Base, folder: Path) -> None:
    """Create the image's virtual environment, which will be at /opt/venv, in `folder`: packages and bytecode.

    Raises:
        ImageError, UvError: as for `install_dependencies`.
    """
    install_dependencies(job, base, folder)
    compiler = find_bytecode_compiler(job.bundle, job.warn)
    if compiler is not None:
        python = job.spec.python
        bytecode.compile_package_bytecode(
            find_dependency_folder(folder, python), format_dependency_path(python), compiler
        )


def install_dependencies(job: BuildJob, base: Base, folder: Path) -> None:
    """Create the image's virtual environment in `folder`, without bytecode.

    uv installs it on this machine, with hard links into its cache: nothing is downloaded twice, no package code runs,
    and the platform can differ from this machine's.

    Raises:
        ImageError: the base lacks the Python version, or a package has no wheel for the platform and does not build.
        UvError: the index does not answer.
    """
    python = job.spec.python
    job.progress(f"prepare the dependencies for {job.platform}")
    packages = find_dependency_folder(folder, python)
    packages.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        home_future = pool.submit(find_base_python, job.client, base, python)
        try:
            _install_dependency_wheels(job, base, home_future, packages)
        finally:
            home = home_future.result()  # without the version, nothing else matters
    for info in packages.glob("*.dist-info"):
        for name in LOCAL_TRACES:
            (info / name).unlink(missing_ok=True)
    (packages / ".lock").unlink(missing_ok=True)  # a lock file of uv
    _move_dependency_scripts(packages, folder / "bin")
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n", encoding="utf-8"
    )
    for name in ("python", "python3", f"python{python}"):
        (folder / "bin" / name).symlink_to(f"{home}/python{python}")


def find_dependency_folder(environment: Path, python: str) -> Path:
    """The site-packages of an environment with this minor version of Python."""
    return environment / "lib" / f"python{python}" / "site-packages"


def format_dependency_path(python: str) -> str:
    """The path of site-packages in the image, which tracebacks show."""
    return find_dependency_folder(Path(VENV), python).as_posix()


def _install_dependency_wheels(job: BuildJob, base: Base, home_future: Future[str], target: Path) -> None:
    """Install the wheels. Build packages without a wheel here if they are pure Python, otherwise on the base image.

    Args:
        home_future: returns the folder of the base image's Python.
    """
    bundle, platform = job.bundle, job.platform
    machine = PLATFORMS[platform]
    locked = {
        package.name: package
        for package in parse_locked_requirement_lines((bundle.folder / REQUIREMENTS).read_text(encoding="utf-8"))
    }
    required_names = {
        name for name, package in locked.items() if is_requirement_needed_on(package, bundle.manifest.python, machine)
    }
    local_builds: set[str] = set()
    base_builds: set[str] = set()
    while True:
        try:
            _run_uv_for_image(bundle, platform, target, local_builds, base_builds)
        except uv.UvError as error:
            if (
                names := _find_missing_dependency_wheels(NO_WHEEL, error) & required_names - local_builds - base_builds
            ) and not _find_missing_dependency_wheels(NO_BUILD, error):
                local_builds |= names
            elif names := _find_missing_dependency_wheels(NO_BUILD, error) & local_builds:
                local_builds, base_builds = local_builds - names, base_builds | names
            else:
                raise
            continue
        compiled_names = {name for name in local_builds if not _is_pure_python_dependency(target, name)}
        if not compiled_names:
            break
        local_builds, base_builds = local_builds - compiled_names, base_builds | compiled_names
    for name in sorted(local_builds | base_builds):
        location = "the base image" if name in base_builds else "this machine"
        job.warn(f"{name} {locked[name].version} has no wheel for {platform}: built from its source on {location}.")
    if base_builds:
        python = f"{home_future.result()}/python{bundle.manifest.python}"
        build_folder = build_source_packages(job, base, python, [locked[name] for name in sorted(base_builds)])
        shutil.copytree(build_folder, target, dirs_exist_ok=True)


def _find_missing_dependency_wheels(pattern: str, error: uv.UvError) -> set[str]:
    return {canonicalize_name(name) for name in re.findall(pattern, error.detail)}


def _run_uv_for_image(
    bundle: Bundle, platform: str, target: Path, local_builds: set[str], base_builds: set[str]
) -> None:
    text = (bundle.folder / REQUIREMENTS).read_text(encoding="utf-8")
    packages = [package for package in parse_locked_requirement_lines(text) if package.name not in base_builds]
    arguments = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(target)]
    arguments += ["--python-version", bundle.manifest.python]
    arguments += ["--python-platform", f"{PLATFORMS[platform]}-manylinux_2_28"]
    # Hashes identify the files, whichever index has them.
    arguments += ["--index-strategy", "unsafe-best-match"]
    arguments += ["--only-binary", ":all:"] if not local_builds else []
    for package in packages if local_builds else []:
        arguments += ["--no-binary" if package.name in local_builds else "--only-binary", package.name]
    shutil.rmtree(target)
    target.mkdir()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        bundle_lines = [line for line in text.splitlines() if line.startswith(("--find-links ", f"./{WHEELS}/"))]
        file.write("".join(f"{line.replace('./', f'{bundle.folder}/', 1)}\n" for line in bundle_lines))
        file.write("".join(f"{package}\n" for package in packages))
        file.flush()
        uv.run_uv(
            [*arguments, "--requirements", file.name],
            folder=bundle.folder,
            image=uv.add_indexes(bundle.settings.image, text),
            activity=f"Fetching the dependencies for {platform}",
        )


def _is_pure_python_dependency(packages: Path, name: str) -> bool:
    """Whether a package that was built here contains no compiled code, and therefore fits any image."""
    for info in packages.glob("*.dist-info"):
        if canonicalize_name(info.name.split("-")[0]) == name:
            return "Root-Is-Purelib: true" in (info / "WHEEL").read_text(encoding="utf-8")
    return False


def _move_dependency_scripts(packages: Path, target: Path) -> None:
    """Move the scripts to a folder in the image's PATH, with its Python in their first line."""
    target.mkdir()
    source = packages / "bin"
    for script in sorted(source.iterdir()) if source.is_dir() else []:
        content = script.read_bytes()
        if content.startswith(b"#!") and b"python" in content.split(b"\n", 1)[0]:
            content = b"\n".join([f"#!{VENV}/bin/python".encode(), content.split(b"\n", 1)[1]])
        script_file = target / script.name
        script_file.write_bytes(content)
        script_file.chmod(0o755)
    if source.is_dir():
        shutil.rmtree(source)
    for record in packages.glob("*.dist-info/RECORD"):
        _rewrite_dependency_record(record)


def _rewrite_dependency_record(record: Path) -> None:
    """Update a RECORD after files were moved or removed. Replaces the file, as it can be a link into uv's cache."""
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


def fingerprint_image_dependencies(bundle: Bundle) -> str:
    """Hex digest of the dependencies: the locked requirements and the wheels in the bundle."""
    files = bundle.manifest.files
    parts = [f"{name} {file.sha256}" for name, file in files.items() if name.startswith((REQUIREMENTS, f"{WHEELS}/"))]
    return hashlib.sha256("\n".join([*parts, bundle.manifest.python, sys.version]).encode()).hexdigest()
