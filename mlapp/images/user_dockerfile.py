"""The project's own Dockerfile: writes one for users to edit and keep, and builds an image from it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tarfile
from pathlib import Path

from mlapp.bundle import Bundle
from mlapp.images.base import find_base
from mlapp.images.build_job import BuildJob
from mlapp.images.dockerfile import render_dockerfile
from mlapp.images.engine import (
    ImageError,
    check_image_engine_messages,
    connect_image_engine,
    translate_image_engine_errors,
)
from mlapp.images.image_spec import LAYOUT, ImageSpec, choose_image_platforms, make_image_spec
from mlapp.images.layer_files import lay_out_layer_files
from mlapp.images.tar_layer import normalize_tar_entry
from mlapp.reporting import Reporter
from mlapp.temporary_folders import open_temporary_folder

LASTING_LABELS = ("org.opencontainers.image.title", "org.opencontainers.image.source", "mlapp.app", "mlapp.sbom")
"""Labels that stay correct in a kept Dockerfile. `mlapp build` adds those that change with code and model."""
DOCKERIGNORE = f"# The build needs only the files of the layers.\n**\n!{LAYOUT}/**\n"


def build_user_dockerfile(job: BuildJob) -> str:
    """Build with the engine's builder; returns the image ID. The image is tagged when it is complete.

    The context is the project's code and, if the Dockerfile copies from them, the layers' files.

    Raises:
        EngineError: an instruction failed.
    """
    assert job.dockerfile is not None
    client, bundle, spec = job.client, job.bundle, job.spec
    text = job.dockerfile.read_text(encoding="utf-8")
    with open_temporary_folder("image", bundle.folder.parent) as folder:
        layout = folder / "layout"
        if LAYOUT in text:
            base = find_base(client, _use_dockerfile_base(spec, text), job.platform, job.progress)
            lay_out_layer_files(job, base, layout)
        context = folder / "context.tar"
        _write_user_dockerfile_context(context, bundle.root, layout, text)
        job.progress(f"build with {job.dockerfile}")
        with translate_image_engine_errors("Building the image"), context.open("rb") as file:
            stream = client.api.build(
                fileobj=file,
                custom_context=True,
                platform=job.platform,
                labels=dict(spec.labels),
                rm=True,
                forcerm=True,
                decode=True,
            )
            image_id = ""
            for message in check_image_engine_messages(stream, "Building the image"):
                image_id = (message.get("aux") or {}).get("ID") or image_id
                step = message.get("stream", "").strip()
                if step.startswith("Step "):
                    job.progress(step)
            repository, _, tag = job.reference.rpartition(":")
            client.api.tag(image_id, repository, tag)
    return image_id


def _use_dockerfile_base(spec: ImageSpec, text: str) -> ImageSpec:
    """The specification with the base image in the Dockerfile, so that the environment fits its Python."""
    base_names = re.findall(r"^FROM\s+(?:--platform=\S+\s+)?(\S+)", text, re.MULTILINE | re.IGNORECASE)
    stages = re.findall(r"^FROM\s.*\sAS\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    bases = [name for name in base_names if name not in stages and "$" not in name]
    return dataclasses.replace(spec, base=bases[-1] if bases else spec.base, system_packages=())


def _write_user_dockerfile_context(context: Path, code: Path, layout: Path, dockerfile: str) -> None:
    """Write a tar of the project's and the layers' files, reproducibly so that caches hit."""
    copy = context.parent / "Dockerfile"
    copy.write_text(dockerfile, encoding="utf-8")
    with tarfile.open(context, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.dereference = False
        for path in sorted(code.iterdir()):
            if path.name != "Dockerfile":
                archive.add(path, path.name, filter=normalize_tar_entry)
        if layout.is_dir():
            archive.add(layout, LAYOUT, filter=normalize_tar_entry)
        archive.add(copy, "Dockerfile", filter=normalize_tar_entry)


def eject_dockerfile(
    bundle: Bundle,
    root: Path,
    *,
    platform: list[str] | None,
    progress: Reporter,
    warn: Reporter,
) -> list[Path]:
    """Write `Dockerfile` and its layers' files to the project, so that `docker build .` works; returns the files.

    The layers are rewritten each time; an existing Dockerfile is never overwritten.

    Raises:
        ConfigError: a Dockerfile cannot express a setting. ImageError: there is no engine or no base image.
        UvError: the dependencies cannot be fetched.
    """
    file, ignore, layout = root / "Dockerfile", root / "Dockerfile.dockerignore", root / LAYOUT
    spec = make_image_spec(bundle)
    labels = {name: value for name, value in spec.labels.items() if name in LASTING_LABELS}
    texts = {} if file.exists() else {file: render_dockerfile(dataclasses.replace(spec, labels=labels))}
    texts |= {} if ignore.exists() else {ignore: DOCKERIGNORE}
    with connect_image_engine() as client:
        with translate_image_engine_errors():
            version = client.version()
        engine_platform = choose_image_platforms(bundle.settings, platform, f"{version['Os']}/{version['Arch']}")[0]
        job = BuildJob(client, bundle, spec, engine_platform, progress, warn)
        base = find_base(client, spec, engine_platform, progress)
        try:
            shutil.rmtree(layout, ignore_errors=True)
            lay_out_layer_files(job, base, layout)
            for path, text in texts.items():
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            path_text = error.filename or root
            raise ImageError(f"{path_text}: {error.strerror}.", "Check its permissions and space.") from error
    return [*texts, layout]
