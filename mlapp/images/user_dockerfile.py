"""Build from the project's own Dockerfile."""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path

from mlapp.images.base import find_base, find_base_python
from mlapp.images.build_job import BuildJob
from mlapp.images.engine import check_engine_messages, translate_engine_errors
from mlapp.images.image_spec import LAYOUT, ImageSpec
from mlapp.images.layer_files import lay_out_layers
from mlapp.images.source_builds import make_source_builder
from mlapp.images.tar_layer import normalize_tar_entry


def build_user_dockerfile(job: BuildJob) -> str:
    """Build with the engine's builder; returns the image ID. The image is tagged when it is complete.

    The context is the project's code and, if the Dockerfile copies from them, the layers' files.

    Raises:
        EngineError: an instruction failed.
    """
    assert job.dockerfile is not None
    client, bundle, spec = job.client, job.bundle, job.spec
    text = job.dockerfile.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix=".image-", dir=bundle.folder.parent) as folder:
        layout = Path(folder, "layout")
        if LAYOUT in text:
            base = find_base(client, _use_dockerfile_base(spec, text), job.platform, job.progress)
            job.progress(f"prepare the dependencies for {job.platform}")
            home = find_base_python(client, base, spec.python)
            compile = make_source_builder(client, base, home, bundle, job.progress)
            lay_out_layers(bundle, job.platform, home, layout, job.warn, spec.layers, compile=compile)
        context = Path(folder, "context.tar")
        _write_dockerfile_context(context, bundle.root, layout, text)
        job.progress(f"build with {job.dockerfile}")
        with translate_engine_errors("Building the image"), context.open("rb") as file:
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
            for message in check_engine_messages(stream, "Building the image"):
                image_id = (message.get("aux") or {}).get("ID") or image_id
                step = message.get("stream", "").strip()
                if step.startswith("Step "):
                    job.progress(step)
            repository, _, tag = job.reference.rpartition(":")
            client.api.tag(image_id, repository, tag)
    return image_id


def _use_dockerfile_base(plan: ImageSpec, text: str) -> ImageSpec:
    """The plan with the base image in the Dockerfile, so that the environment fits its Python."""
    import dataclasses

    named = re.findall(r"^FROM\s+(?:--platform=\S+\s+)?(\S+)", text, re.MULTILINE | re.IGNORECASE)
    stages = re.findall(r"^FROM\s.*\sAS\s+(\S+)", text, re.MULTILINE | re.IGNORECASE)
    bases = [name for name in named if name not in stages and "$" not in name]
    return dataclasses.replace(plan, base=bases[-1] if bases else plan.base, system_packages=())


def _write_dockerfile_context(context: Path, code: Path, layout: Path, dockerfile: str) -> None:
    """Write a tar of the project's and the layers' files, reproducibly so that caches hit."""

    written = context.parent / "Dockerfile"
    written.write_text(dockerfile, encoding="utf-8")
    with tarfile.open(context, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.dereference = False
        for path in sorted(code.iterdir()):
            if path.name != "Dockerfile":
                archive.add(path, path.name, filter=normalize_tar_entry)
        if layout.is_dir():
            archive.add(layout, LAYOUT, filter=normalize_tar_entry)
        archive.add(written, "Dockerfile", filter=normalize_tar_entry)
