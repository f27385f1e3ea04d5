"""Write the layers of an image that the engine lacks."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlapp.bundle.bundle import MODEL, REQUIREMENTS, WHEELS
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines
from mlapp.images import bytecode, dependencies
from mlapp.images.base import Base
from mlapp.images.build_job import BuildJob
from mlapp.images.engine import ImageError
from mlapp.images.layer_files import lay_out_content_layers
from mlapp.images.layer_reuse import (
    DEPENDENCIES,
    MODEL_LAYER,
    NOTHING,
    PACKAGES,
    EngineLayers,
    find_reusable_layers,
    find_reusable_package_layers,
    parse_package_layers,
)
from mlapp.images.package_groups import PackageGroup, split_packages_into_groups
from mlapp.images.tar_layer import FolderLayer, Layer
from mlapp.temporary_folders import open_temporary_folder


@dataclass(frozen=True)
class ImageLayers:
    """The layers of an image above its base.

    Attributes:
        labels: fingerprints of the layers' input. The next build uses them to find the layers in the engine.
        engine_layers: the layers that the engine already has.
    """

    layers: list[Layer]
    labels: Mapping[str, str]
    engine_layers: EngineLayers


@contextmanager
def write_layers(job: BuildJob, base: Base, *, required_label: str | None, has_reuse: bool) -> Iterator[ImageLayers]:
    """Write the layers that the engine lacks to a temporary folder, which exists inside the block.

    Bytecode is compiled in the background: the layers of packages can still be incomplete.

    Args:
        required_label: a label that an image must have for its layers to be reused.
        has_reuse: whether to reuse layers in the engine.

    Raises:
        ImageError: a package has no wheel and does not build, or there is no space. UvError: the index does not answer.
    """
    with open_temporary_folder("image", job.bundle.folder.parent) as folder:
        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            yield _write_layers(job, base, required_label, has_reuse, folder, pool)
        except OSError as error:
            raise ImageError(
                f"The layers cannot be written: {error.filename or folder}: {error.strerror}.", "Free disk space there."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write_layers(
    job: BuildJob, base: Base, required_label: str | None, has_reuse: bool, folder: Path, pool: Executor
) -> ImageLayers:
    packages, *others = job.spec.layers
    keys = _compute_layer_keys(job)
    engine_layers = (
        find_reusable_layers(job.client, base, keys[DEPENDENCIES], keys[MODEL_LAYER], required_label)
        if has_reuse
        else NOTHING
    )
    titles = parse_package_layers(engine_layers.labels)
    missing_copies = others[len(engine_layers.layers) - len(titles) :] if engine_layers.layers else others
    # First, so that a syntax error in the app is reported early.
    lay_out_content_layers(job.bundle, folder, missing_copies)
    layers: list[Layer] = [FolderLayer(folder / copy.source, copy.target) for copy in missing_copies]
    if not engine_layers.layers:
        groups = _install_layer_packages(job, base, folder / packages.source)
        titles = {group.title: _compute_group_layer_key(job, group) for group in groups}
        engine_layers = find_reusable_package_layers(job.client, base, titles, required_label) if has_reuse else NOTHING
        layers = [*_start_compiling_layers(job, groups[len(engine_layers.layers) :], packages.target, pool), *layers]
    labels = {**keys, PACKAGES: json.dumps(titles)}
    return ImageLayers([*map(Layer, engine_layers.layers), *layers], labels, engine_layers)


def _install_layer_packages(job: BuildJob, base: Base, environment: Path) -> list[PackageGroup]:
    dependencies.install_dependencies(job, base, environment)
    packages = dependencies.find_dependency_folder(environment, job.bundle.manifest.python)
    return split_packages_into_groups(environment, packages, environment.parent)


def _start_compiling_layers(job: BuildJob, groups: list[PackageGroup], target: str, pool: Executor) -> Iterator[Layer]:
    python = job.bundle.manifest.python
    compiler = bytecode.find_bytecode_compiler(job.bundle, job.warn)
    for group in groups:
        packages = dependencies.find_dependency_folder(group.folder, python)
        image_path = dependencies.format_dependency_path(python)
        pending_writes = bytecode.start_bytecode_compilation(pool, packages, image_path, compiler) if compiler else ()
        yield FolderLayer(group.folder, target, pending_writes)


def _compute_layer_keys(job: BuildJob) -> dict[str, str]:
    files = job.bundle.manifest.files
    model = (f"{name} {file.sha256}" for name, file in files.items() if name.startswith(f"{MODEL}/"))
    return {
        DEPENDENCIES: _hash_layer_key_parts(job.platform, dependencies.fingerprint_image_dependencies(job.bundle)),
        MODEL_LAYER: _hash_layer_key_parts(*model),
    }


def _compute_group_layer_key(job: BuildJob, group: PackageGroup) -> str:
    """A fingerprint of all input of a group's layer: the locked files, the installed files, and the compiler."""
    bundle = job.bundle
    locked_packages = parse_locked_requirement_lines((bundle.folder / REQUIREMENTS).read_text(encoding="utf-8"))
    files = sorted(str(package) for package in locked_packages if package.name in group.names)
    wheels = (f"{name} {file.sha256}" for name, file in bundle.manifest.files.items() if name.startswith(f"{WHEELS}/"))
    wheels_of_group = wheels if group.names - {package.name for package in locked_packages} else ()
    return _hash_layer_key_parts(
        job.platform, bundle.manifest.python, sys.version, group.fingerprint, *files, *wheels_of_group
    )


def _hash_layer_key_parts(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
