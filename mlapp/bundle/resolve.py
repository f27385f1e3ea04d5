"""Resolves a project's requirements to exact versions with hashes, for all platforms at once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlapp import distribution
from mlapp.bundle import uv
from mlapp.bundle.requirement_lines import (
    LockedPackage,
    list_source_requirement_lines,
    parse_locked_requirement_lines,
    resolve_requirement_folder,
    select_requirements_for_python,
)
from mlapp.bundle.requirements import DeclaredRequirements
from mlapp.config import Image
from mlapp.temporary_folders import open_temporary_folder


@dataclass(frozen=True)
class Lock:
    """The resolved packages of a project.

    Attributes:
        packages: those from an index.
        sources: folders and repositories, for `mlapp.bundle.source_wheels`.
    """

    packages: tuple[LockedPackage, ...]
    sources: tuple[str, ...]


def resolve_requirements(
    declared: DeclaredRequirements | None,
    own_requirement: str,
    trained: Mapping[str, str],
    *,
    root: Path,
    python: str,
    image: Image,
    cache: Path,
    upgrade: bool = False,
) -> Lock:
    """Resolve a project's requirements, including mlapp and the libraries that its model was trained with.

    If the requirements permit it, the versions are those of the training, so that the model runs with the same
    libraries. The resolution is cached, and repeated only with `upgrade` or if its inputs change.

    Args:
        declared: the project's own requirements, or None.
        own_requirement: of mlapp: `mlapp-kit==1.0`, or `mlapp-kit @ file:///…` for a wheel, which is not locked.
        trained: library → version in training.
        cache: the folder of resolutions.
        upgrade: resolve again, to the newest versions.
        python: the minor version of the image's Python, such as 3.11.

    Raises:
        UvError: no versions fit, a package does not exist, or the index cannot be reached.
    """
    requirements = [own_requirement, *sorted(trained), *(declared.lines if declared else ())]
    inputs = [
        own_requirement.partition(" @ ")[0],
        requirements[1:],
        declared.text if declared else "",
        dict(trained),
        python,
    ]
    wheel = resolve_requirement_folder(own_requirement, root) if " @ " in own_requirement else None
    own_hash = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel else ""
    key = json.dumps([*inputs, own_hash, image.index_url, image.extra_index_urls, uv.read_uv_version()], sort_keys=True)
    cached_file = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.txt"
    text = "" if upgrade or not cached_file.is_file() else cached_file.read_text(encoding="utf-8")
    if not text.startswith(_stamp_resolved_sources(text, root)):
        text = _compile_requirements(declared, requirements, trained, own_requirement, root, python, image)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=cache, delete=False) as file:
            file.write(_stamp_resolved_sources(text, root) + text)
        os.replace(file.name, cached_file)
    hashes = declared.hashes if declared else {}
    packages = (
        replace(each, hashes=hashes.get((each.name, each.version), each.hashes))
        for each in parse_locked_requirement_lines(text)
    )
    return Lock(
        tuple(select_requirements_for_python(list(packages), python)), tuple(list_source_requirement_lines(text))
    )


def _stamp_resolved_sources(text: str, root: Path) -> str:
    """A comment with a hash of the local folders' requirements and of the local files in a resolution."""
    digest = hashlib.sha256()
    for place in (resolve_requirement_folder(source, root) for source in list_source_requirement_lines(text)):
        for file in (place, *(place / name for name in ("pyproject.toml", "setup.py", "setup.cfg"))) if place else ():
            digest.update(file.read_bytes() if file.is_file() else b"-")
    return f"# {digest.hexdigest()}\n"


def _compile_requirements(
    declared: DeclaredRequirements | None,
    requirements: list[str],
    trained: Mapping[str, str],
    own_requirement: str,
    root: Path,
    python: str,
    image: Image,
) -> str:
    with open_temporary_folder("lock") as folder:
        requirements_file, result = Path(folder, "mlapp.in"), Path(folder, "requirements.txt")
        requirements_file.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        # uv prefers the versions in an existing output file if the requirements permit them.
        result.write_text("".join(f"{name}=={version}\n" for name, version in trained.items()), encoding="utf-8")
        arguments = ["pip", "compile", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        arguments += ["--python-version", python, "--output-file", str(result), str(requirements_file)]
        if " @ " in own_requirement:
            arguments += ["--no-emit-package", distribution.NAME]
        if declared and declared.file:
            arguments.append(str(declared.file))
        if declared and declared.hashes:  # a lock identifies files, whichever index has them
            arguments += ["--index-strategy", "unsafe-best-match"]
        source = declared.source if declared else "the model's libraries"
        indexes = "\n".join(declared.indexes) if declared else ""
        uv.run_uv(arguments, folder=root, image=uv.add_indexes(image, indexes), activity=f"Resolving {source}")
        return result.read_text(encoding="utf-8")
