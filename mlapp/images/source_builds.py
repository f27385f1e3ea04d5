"""Build packages without a wheel in a container of the base image, so that they fit its system and platform.

It is a container rather than a build stage, so that no image ever contains the compiler or an index's credentials.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import ssl
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mlapp.bundle import uv
from mlapp.bundle.bundle import REQUIREMENTS
from mlapp.bundle.requirement_lines import LockedPackage
from mlapp.env_vars import find_user_cache
from mlapp.images.base import Base
from mlapp.images.build_job import BuildJob
from mlapp.images.engine import EngineError, ImageError, translate_image_engine_errors
from mlapp.images.image_spec import PLATFORMS
from mlapp.images.tar_layer import normalize_tar_entry
from mlapp.temporary_folders import open_temporary_folder

if TYPE_CHECKING:
    from docker import DockerClient

PLACE = "/build"
SCRIPT = f"""set -eu
headers=$("$0" -c 'import sysconfig; print(sysconfig.get_path("include"))')
missing=
command -v cc >/dev/null || missing="gcc g++ make libc6-dev"
[ -e "$headers/Python.h" ] || missing="$missing python3-dev"
[ -z "$missing" ] || {{ apt-get update -qq; apt-get install -y -qq --no-install-recommends $missing >/dev/null; }}
no_binary=$(sed -n 's/^\\([A-Za-z0-9._-]*\\)==.*/--no-binary \\1/p' {PLACE}/requirements.txt)
exec {PLACE}/uv/bin/uv pip install --quiet --no-deps --require-hashes --python "$0" --target {PLACE}/out $no_binary \\
  --requirements {PLACE}/requirements.txt
"""
"""$0 is the base's Python. The script installs only missing tools."""

EXEC_FORMAT = 126
"""Exit code of a shell that cannot execute a program."""


def build_source_packages(job: BuildJob, base: Base, python: str, packages: Sequence[LockedPackage]) -> Path:
    """Build the packages and install them in a folder of the user's cache.

    Args:
        python: path of the base image's Python.

    Raises:
        ImageError: a package does not build, or the engine cannot run the platform's programs. UvError: no index has
            uv.
    """
    names = ", ".join(package.name for package in packages)
    requirements = "".join(f"{package}\n" for package in packages)
    image = uv.add_indexes(job.bundle.settings.image, (job.bundle.folder / REQUIREMENTS).read_text(encoding="utf-8"))
    version = uv.read_uv_version().split()[1]
    key = hashlib.sha256("\n".join([base.id, python, version, requirements]).encode()).hexdigest()
    cached_folder = find_user_cache() / "compiled" / key
    if cached_folder.is_dir():
        return cached_folder
    job.progress(f"build {names} on the base image")
    with open_temporary_folder("build") as folder:
        machine = f"{PLATFORMS[base.platform]}-manylinux_2_28"
        arguments = ["pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-platform", machine]
        arguments += ["--target", f"{folder}/uv", f"uv=={version}"]
        uv.run_uv(arguments, folder=folder, image=image, activity="Fetching uv")
        Path(folder, "requirements.txt").write_text(requirements, encoding="utf-8")
        variables = {**_read_source_build_variables(folder), **uv.make_index_variables(image)}
        archive = _run_source_build(job.client, base, python, variables, folder, names)
    cached_folder.parent.mkdir(parents=True, exist_ok=True)
    with open_temporary_folder("wheels", cached_folder.parent) as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as output:
            if hasattr(tarfile, "data_filter"):
                output.extractall(folder, filter="data")
            else:  # Python before 3.10.12, and 3.11 before 3.11.4
                output.extractall(folder, filter(_is_plain_member, output))  # noqa: S202 - filtered
        with contextlib.suppress(OSError):  # another build was faster
            (folder / "out").rename(cached_folder)
    return cached_folder


def _is_plain_member(member: tarfile.TarInfo) -> bool:
    """Whether it is a file or a folder that is extracted below the target: code of packages wrote the archive."""
    path = PurePosixPath(member.name)
    return (member.isfile() or member.isdir()) and not path.is_absolute() and ".." not in path.parts


def _read_source_build_variables(folder: Path) -> dict[str, str]:
    """The environment variables for this machine's network access: proxies and trusted certificate authorities."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    variables = {
        variant: os.environ[variant] for name in names for variant in (name, name.lower()) if variant in os.environ
    }
    authorities = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if authorities and Path(authorities).is_file():
        shutil.copy(authorities, folder / "ca.pem")
        variables["SSL_CERT_FILE"] = f"{PLACE}/ca.pem"
    return variables


def _run_source_build(
    client: DockerClient, base: Base, python: str, variables: dict[str, str], folder: Path, names: str
) -> bytes:
    """Run the script with `folder` at PLACE; returns a tar of its output."""
    archive_bytes = io.BytesIO()
    with tarfile.open(fileobj=archive_bytes, mode="w") as archive:
        archive.add(folder, PLACE.lstrip("/"), filter=normalize_tar_entry)
    options = client.api.create_host_config(network_mode="host")
    with translate_image_engine_errors(f"Building {names}"):
        container = client.api.create_container(
            base.id, entrypoint=["/bin/sh", "-c", SCRIPT, python], user="0", environment=variables, host_config=options
        )["Id"]
        try:
            client.api.put_archive(container, "/", archive_bytes.getvalue())
            try:
                with translate_image_engine_errors():
                    client.api.start(container)
                    code = client.api.wait(container)["StatusCode"]
            except EngineError as error:
                if "exec format error" not in error.what:
                    raise
                code = EXEC_FORMAT
            output = client.api.logs(container).decode(errors="replace").strip()
            if code == EXEC_FORMAT or "exec format error" in output:
                raise ImageError(
                    f"{names} has no wheel for {base.platform}, and this engine cannot run programs of that "
                    f"platform to build one.",
                    "Choose a version that has one, or install an emulator: apt-get install qemu-user-static.",
                )
            if code:
                summary = " | ".join(line.strip() for line in output.splitlines() if line.strip()).strip()
                raise ImageError(
                    f"{names} has no wheel for {base.platform}, and does not build on the base image: {summary[-600:]}",
                    "Choose a version that has one, or list its build requirements under image.system_packages.",
                )
            stream, _ = client.api.get_archive(container, f"{PLACE}/out")
            return b"".join(stream)
        finally:
            client.api.remove_container(container, force=True)
