"""Builds a bundle of a project and one version of its model."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit, urlunsplit

import msgspec
from packaging.utils import canonicalize_name

from mlapp import config, distribution, provenance
from mlapp.bundle import bundle, sbom, secrets
from mlapp.bundle.bundle import Bundle, BundleError, BundleFile, BundleManifest, hash_bundle_file, open_bundle
from mlapp.bundle.conversion import write_bundle_conversion
from mlapp.bundle.import_check import find_unlocked_imports
from mlapp.bundle.locked_requirements import write_bundle_requirements
from mlapp.bundle.project_files import find_project_files
from mlapp.bundle.requirement_lines import LockedPackage
from mlapp.errors import ConfigError
from mlapp.plain_numbers import parse_plain_integer
from mlapp.project import Project
from mlapp.provenance import strip_build_version
from mlapp.reporting import Reporter
from mlapp.secret_variables import PASSWORD_IN_URL, refuse_secret_variables
from mlapp.store import Manifest, ModelVersion
from mlapp.store.aliases import AliasEntry
from mlapp.store.manifest import FORMAT as STORE_FORMAT
from mlapp.store.numbered_names import format_number_name
from mlapp.temporary_folders import open_temporary_folder

WRITTEN_BY_HAND = (".py", ".ipynb", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".json", ".txt", ".in", ".sh")
"""Suffixes of files that can contain a URL with a password."""

IMAGE_TODO = "Give it where the image runs: targets.k8s.secrets, or an environment variable of the container."

PRODUCTION = "production"
"""The default alias of a site's model."""

RECIPE = ("Dockerfile", "Dockerfile.dockerignore")
"""Files that define the image build. They are not part of the bundle, so ejecting them does not change it."""


class BundleOptions(TypedDict, total=False):
    """The optional arguments of `build_bundle`, for the functions that pass them on."""

    model: str | int
    environment: str | None
    output: Path | None
    upgrade: bool
    has_model: bool


def build_bundle(
    project: Project,
    model: str | int = "latest",
    *,
    environment: str | None = None,
    output: Path | None = None,
    upgrade: bool = False,
    has_model: bool = True,
    warn: Reporter,
) -> Bundle:
    """Bundle a project. The same input always results in the same bundle, which is created only once.

    Args:
        model: a version, alias or `latest` of the store.
        environment: the key of `environments:` with the settings for serving.
        output: the parent folder of the bundle; by default `.mlapp/bundles` of the project.
        upgrade: resolve the requirements again, to the newest compatible versions.
        has_model: whether to include the version. Without it, versions with the same libraries share a bundle.
        warn: receives warnings, one line each.

    Raises:
        ConfigError: a variable of image.env looks like a secret.
        BundleError: the files or requirements cannot be bundled, or there is no space.
        UsageError: there is no such version or alias. StoreError: the model cannot be read.
    """
    refuse_secret_variables("image.env", project.settings.image.env, "in the image", IMAGE_TODO)
    if has_model or project.settings.store.verify == "required":  # the signature covers the files
        version = project.store.get(project.name, model)
        manifest = version.manifest
    else:
        manifest = project.store.manifest(project.name, project.store.resolve(project.name, model))
    python = project.settings.image.python or "{}.{}".format(*sys.version_info)
    parent = (output or project.root / ".mlapp" / "bundles").resolve()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with open_temporary_folder("bundle", parent) as staging:
            plan = _BundlePlan(
                project, manifest, version if has_model else None, python, environment, upgrade, staging, warn
            )
            return _publish_bundle(plan, _fill_bundle(plan))
    except OSError as error:
        where = error.filename or parent
        todo = "Free disk space there, or choose another folder with --output."
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            todo = "Make the folder writable: mlapp keeps bundles and locks in .mlapp in the project's folder."
        raise BundleError(f"The bundle cannot be written: {where}: {error.strerror}.", todo) from error


@dataclass(frozen=True)
class _BundlePlan:
    """The content of a bundle, and the folder in which it is assembled.

    Attributes:
        manifest: of the version that determines the libraries.
        version: that version; None if the bundle does not include it.
        staging: the folder in which the bundle is assembled.
    """

    project: Project
    manifest: Manifest
    version: ModelVersion | None
    python: str
    environment: str | None
    upgrade: bool
    staging: Path
    warn: Reporter


def _fill_bundle(plan: _BundlePlan) -> BundleManifest:
    project, staging, version, warn = plan.project, plan.staging, plan.version, plan.warn
    _copy_bundle_code(project, staging / bundle.CODE, warn)
    _warn_of_bundled_credentials(staging / bundle.CODE, warn)
    _write_bundle_store(version, staging / bundle.MODEL)
    if version is not None and project.settings.serve.wsgi is not None:
        _write_bundle_aliases(project, version, staging / bundle.MODEL)
    packages, source = _write_locked_libraries(plan)
    if not (project.root / RECIPE[0]).is_file():  # an own Dockerfile can install more
        for warning in find_unlocked_imports(project.root, project.location, {package.name for package in packages}):
            warn(warning)
    model = version.manifest if version else None
    bill = sbom.make_sbom(plan.manifest.app, model, packages, distribution.version())
    (staging / bundle.SBOM).write_bytes(msgspec.json.format(msgspec.json.encode(bill)) + b"\n")
    content = BundleManifest(
        format=bundle.FORMAT,
        app=plan.manifest.app,
        version=model.version if model else bundle.NO_VERSION,
        created=_compute_bundle_time(project.root, model),
        python=plan.python,
        mlapp=distribution.version(),
        requirements=source,
        environment=plan.environment,
        git=provenance.read_git_state(project.root),
        source=_read_bundle_git_remote(project.root),
        files=describe_bundle_files(staging),
    )
    (staging / bundle.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    return content


def _write_locked_libraries(plan: _BundlePlan) -> tuple[list[LockedPackage], str]:
    project, version = plan.project, plan.version
    libraries: Mapping[str, str] = plan.manifest.libraries
    if version is not None:
        libraries = write_bundle_conversion(project, version, plan.staging / bundle.MODEL)
    packages, source = write_bundle_requirements(
        project,
        libraries,
        plan.python,
        plan.staging,
        extra="[sign]" if project.settings.store.has_signatures else "",
        upgrade=plan.upgrade,
        warn=plan.warn,
    )
    _warn_of_library_differences(plan.manifest, packages, plan.python, plan.warn)
    return packages, source


def _publish_bundle(plan: _BundlePlan, content: BundleManifest) -> Bundle:
    """Give the assembled folder its final name, which contains the hash of its content."""
    name = f"{content.app}-{content.version or bundle.CODE_ONLY}-{bundle.hash_bundle_manifest(content)}"
    folder = plan.staging.parent / name
    if not folder.exists():
        plan.staging.chmod(0o755)
        try:
            plan.staging.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise, another build has just created it
                raise
    return open_bundle(folder)


def _copy_bundle_code(project: Project, target: Path, warn: Reporter) -> None:
    root, image = project.root, project.settings.image
    store = (root / project.settings.store.url).resolve() if "://" not in project.settings.store.url else None
    app = project.location.file.relative_to(root)
    needed = (app, Path(config.FILE))
    files = find_project_files(root, include=image.include, leave_out=store, needed=needed, warn=warn)
    files = [path for path in files if path.as_posix() not in RECIPE]
    if app not in files:
        state = "is ignored by git or .dockerignore" if (root / app).exists() else "does not exist"
        raise BundleError(f"{app}, the file of the app, {state}.", "Add it to git, or change `app:` in mlapp.yaml.")
    for path in files:
        source, copy = root / path, target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            inside = source.resolve().relative_to(root.resolve())
            copy.symlink_to(os.path.relpath(inside, path.parent))
        else:
            with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                shutil.copyfile(source, copy)
                copy.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _warn_of_bundled_credentials(code: Path, warn: Reporter) -> None:
    """Warn about plain-text passwords in URLs, such as those of a package index or a database."""
    for file in sorted(code.rglob("*")):
        is_searched = file.suffix in WRITTEN_BY_HAND and file.is_file() and file.stat().st_size <= secrets.READ
        if is_searched and PASSWORD_IN_URL.search(file.read_text(encoding="utf-8", errors="replace")):
            name = file.relative_to(code).as_posix()
            warn(f"{name} contains a password in a URL and is part of the bundle: write ${{VARIABLE}} instead.")


def _write_bundle_store(version: ModelVersion | None, target: Path) -> None:
    """Write a store with only this version, or without versions.

    The files are hard links if the file system supports them, because a store never modifies files.
    """
    target.mkdir()
    (target / "store.json").write_bytes(msgspec.json.encode({"format": STORE_FORMAT}))
    if version is None:
        return
    for name in version.manifest.files:
        copy = target / version.app / version.manifest.folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(version.files / name, copy)
        except FileNotFoundError:
            raise BundleError(
                f"Version {version.version} of {version.app} was deleted during bundling.",
                "Choose another: mlapp models list.",
            ) from None
        except OSError:
            shutil.copyfile(version.files / name, copy)
    entry = target / version.app / "versions" / format_number_name(version.version)
    entry.parent.mkdir(parents=True)
    entry.write_bytes(msgspec.json.format(msgspec.json.encode(version.manifest)) + b"\n")


def _write_bundle_aliases(project: Project, version: ModelVersion, target: Path) -> None:
    """Point all aliases of the store at the version in the bundle, because a WSGI site requests its model by alias."""
    entry = msgspec.json.encode(AliasEntry(version.version, version.manifest.created))
    for alias in {PRODUCTION, *project.store.aliases(version.app, [])}:
        file = target / version.app / "aliases" / alias / format_number_name(1)
        file.parent.mkdir(parents=True)
        file.write_bytes(entry)


def _warn_of_library_differences(
    model: Manifest, packages: Iterable[LockedPackage], python: str, warn: Reporter
) -> None:
    locked = {package.name: package.version for package in packages}
    for library, training_version in model.libraries.items():
        image_version = locked.get(canonicalize_name(library))
        if image_version is not None and strip_build_version(image_version) != strip_build_version(training_version):
            warn(
                f"The image has {library} {image_version}, but {training_version} trained the model. "
                "Pin it, or train again."
            )
    if python.split(".") != model.python.split(".")[:2]:
        warn(f"The image has Python {python}, but {model.python} trained the model.")


def _compute_bundle_time(root: Path, model: Manifest | None) -> int:
    """The bundle's creation time as Unix time in seconds, computed from its content instead of the clock."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None:
        seconds = parse_plain_integer(epoch)
        if seconds is None:
            raise ConfigError(f"SOURCE_DATE_EPOCH is '{epoch}'.", "Set it to whole seconds since 1970, or unset it.")
        return seconds
    commit_time = provenance.query_git(root, "log", "-1", "--format=%ct")
    training_time = int(model.created.timestamp()) if model else 0
    return max(training_time, int(commit_time) if commit_time.isdecimal() else 0)


def _read_bundle_git_remote(root: Path) -> str | None:
    url = provenance.query_git(root, "remote", "get-url", "origin")
    if "://" not in url:
        return url or None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def describe_bundle_files(folder: Path) -> dict[str, BundleFile]:
    """The files of a bundle under construction: path → entry of the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {path.relative_to(folder).as_posix(): _make_bundle_file(path) for path in paths}


def _make_bundle_file(path: Path) -> BundleFile:
    if path.is_symlink():
        return BundleFile(link=os.readlink(path))
    status = path.stat()
    return BundleFile(hash_bundle_file(path), status.st_size, bool(status.st_mode & 0o100))
