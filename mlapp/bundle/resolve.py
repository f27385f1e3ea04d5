"""Resolve a project's requirements to exact versions with hashes, for all platforms at once."""

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


@dataclass(frozen=True)
class Lock:
    """The packages of a project: from an index, and from sources (`mlapp.bundle.source_wheels`)."""

    packages: tuple[LockedPackage, ...]
    sources: tuple[str, ...]


def resolve_requirements(
    declared: DeclaredRequirements | None,
    own: str,
    trained: Mapping[str, str],
    *,
    root: Path,
    python: str,
    image: Image,
    cache: Path,
    upgrade: bool = False,
) -> Lock:
    """Resolve a project's requirements, including mlapp and the libraries that its model was trained with.

    If the requirements allow it, the versions are those of the training, so that the model runs with the same
    libraries. A resolution is cached in `cache` by everything that it depends on, and repeated only if that changes or
    with `upgrade`.

    Args:
        declared: the project's own requirements, or None.
        own: the requirement of mlapp: `mlapp-kit==1.0`, or `mlapp-kit @ file:///…` for a wheel, which is not locked.
        trained: library → version in training.
        python: the minor version of the image's Python, such as 3.11.

    Raises:
        UvError: no versions fit, a package does not exist, or the index cannot be reached.
    """
    wanted = [own, *sorted(trained), *(declared.lines if declared else ())]
    known = [own.partition(" @ ")[0], wanted[1:], declared.text if declared else "", dict(trained), python]
    wheel = resolve_requirement_folder(own, root) if " @ " in own else None
    hash_of_own = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel else ""
    key = json.dumps(
        [*known, hash_of_own, image.index_url, image.extra_index_urls, uv.read_uv_version()], sort_keys=True
    )
    kept = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.txt"
    text = "" if upgrade or not kept.is_file() else kept.read_text(encoding="utf-8")
    if not text.startswith(_stamp_resolved_sources(text, root)):
        text = _compile_requirements(declared, wanted, trained, own, root, python, image)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=cache, delete=False) as file:
            file.write(_stamp_resolved_sources(text, root) + text)
        os.replace(file.name, kept)
    hashes = declared.hashes if declared else {}
    packages = (
        replace(each, hashes=hashes.get((each.name, each.version), each.hashes))
        for each in parse_locked_requirement_lines(text)
    )
    return Lock(
        tuple(select_requirements_for_python(list(packages), python)), tuple(list_source_requirement_lines(text))
    )


def _stamp_resolved_sources(text: str, root: Path) -> str:
    """A comment that changes if the requirements of local folders and files in a resolution change."""
    digest = hashlib.sha256()
    for place in (resolve_requirement_folder(source, root) for source in list_source_requirement_lines(text)):
        for file in (place, *(place / name for name in ("pyproject.toml", "setup.py", "setup.cfg"))) if place else ():
            digest.update(file.read_bytes() if file.is_file() else b"-")
    return f"# {digest.hexdigest()}\n"


def _compile_requirements(
    declared: DeclaredRequirements | None,
    wanted: list[str],
    trained: Mapping[str, str],
    own: str,
    root: Path,
    python: str,
    image: Image,
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        extra, result = Path(folder, "mlapp.in"), Path(folder, "requirements.txt")
        extra.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        # uv prefers the versions in an existing output file, as far as the requirements allow.
        result.write_text("".join(f"{name}=={version}\n" for name, version in trained.items()), encoding="utf-8")
        arguments = ["pip", "compile", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        arguments += ["--python-version", python, "--output-file", str(result), str(extra)]
        if " @ " in own:
            arguments += ["--no-emit-package", distribution.NAME]
        if declared and declared.file:
            arguments.append(str(declared.file))
        if declared and declared.hashes:  # a lock identifies files, whichever index has them
            arguments += ["--index-strategy", "unsafe-best-match"]
        source = declared.source if declared else "the model's libraries"
        indexes = "\n".join(declared.indexes) if declared else ""
        uv.run_uv(arguments, folder=root, image=uv.add_indexes(image, indexes), doing=f"Resolving {source}")
        return result.read_text(encoding="utf-8")
