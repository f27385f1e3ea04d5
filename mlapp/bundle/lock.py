"""From what a project needs to exact versions with hashes, for every platform at once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlapp.bundle import uv
from mlapp.bundle.requirements import Declared
from mlapp.config import Image

MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Locked:
    """One package of a lock: its exact requirement and the SHA-256 of each of its files."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        return next(iter(self.requirement.specifier)).version if self.requirement.specifier else ""

    def __str__(self) -> str:
        return " \\\n".join([str(self.requirement), *(f"    --hash=sha256:{digest}" for digest in self.hashes)])


def lock(
    declared: Declared | None,
    own: str,
    trained: Mapping[str, str],
    *,
    root: Path,
    python: str,
    image: Image,
    cache: Path,
    upgrade: bool = False,
) -> list[Locked]:
    """Resolve what a project needs, with mlapp and the libraries that its model was trained with.

    A version that is free is that of the training, so that the model meets what it was made with. A resolution is
    kept in `cache` under all that it depends on, and asked for again only when that changes or with `upgrade`.

    Args:
        declared: the project's own requirements; None when it has none.
        own: the requirement of mlapp: `mlapp==1.0`, or `mlapp @ file:///…` for a wheel, which the lock does not list.
        trained: library → version.
        python: the minor version of the image's Python, as 3.11.

    Raises:
        UvError: no versions fit, a package does not exist, or the index cannot be reached.
    """
    wanted = [own, *sorted(trained), *(declared.lines if declared else ())]
    known = [own.partition(" @ ")[0], wanted[1:], declared.text if declared else "", dict(trained), python]
    hash_of_own = hashlib.sha256(Path(own.partition("file://")[2]).read_bytes()).hexdigest() if " @ " in own else ""
    key = json.dumps([*known, hash_of_own, image.index_url, image.extra_index_urls, uv.version()], sort_keys=True)
    kept = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.txt"
    if not kept.is_file() or upgrade:
        text = _compiled(declared, wanted, trained, own, root, python, image)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as file:
            file.write(text)
        os.replace(file.name, kept)
    return list(_for_python(parse(kept.read_text()), python))


def parse(text: str) -> Iterator[Locked]:
    """The packages of a requirements file with hashes."""
    for entry in text.replace("\\\n", " ").splitlines():
        line, *hashes = entry.split("--hash=sha256:")
        if line.strip() and not line.lstrip().startswith(("#", "-", "./")):
            yield Locked(Requirement(line.strip()), tuple(sorted(digest.strip() for digest in hashes)))


def _compiled(
    declared: Declared | None,
    wanted: list[str],
    trained: Mapping[str, str],
    own: str,
    root: Path,
    python: str,
    image: Image,
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        extra, result = Path(folder, "mlapp.in"), Path(folder, "requirements.txt")
        extra.write_text("".join(f"{line}\n" for line in wanted))
        # uv keeps the versions that it finds in the file it is to write, as far as the requirements allow.
        result.write_text("".join(f"{name}=={version}\n" for name, version in trained.items()))
        arguments = ["pip", "compile", "--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        arguments += ["--python-version", python, "--output-file", str(result), str(extra)]
        if " @ " in own:
            arguments += ["--no-emit-package", "mlapp"]
        if declared and declared.file:
            arguments.append(str(declared.file))
        source = declared.source if declared else "the model's libraries"
        uv.run(arguments, folder=root, image=image, doing=f"Resolving {source}")
        return result.read_text()


def _for_python(packages: Iterable[Locked], python: str) -> Iterator[Locked]:
    """The packages that a Linux with this Python needs; a marker stays where machines differ.

    Which patch release the base has is not known here: what only an early one needs, as a backport, is taken too.
    """
    known = list(packages)
    late = {package.name for package in known if any(_answers(package, f"{python}.99").values())}
    for package in known:
        answers = _answers(package, f"{python}.99" if package.name in late else f"{python}.0")
        if not any(answers.values()):
            continue
        if all(answers.values()):
            package.requirement.marker = None
        yield package


def _answers(package: Locked, python: str) -> dict[str, bool]:
    return {machine: _holds(package.requirement.marker, python, machine) for machine in MACHINES}


def _holds(marker: Marker | None, python: str, machine: str) -> bool:
    return marker is None or marker.evaluate(
        {
            "python_version": python.rpartition(".")[0],
            "python_full_version": python,
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": machine,
        }
    )


def is_for(package: Locked, python: str, machine: str) -> bool:
    """Whether a machine (`x86_64`, `aarch64`) needs the package."""
    return _holds(package.requirement.marker, f"{python}.99", machine)
