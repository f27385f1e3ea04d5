"""Write an image's files on this machine, one folder per layer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mlapp.app_location import locate_app
from mlapp.bundle import Bundle
from mlapp.bundle.bundle import CODE, MANIFEST, MODEL, REQUIREMENTS, SBOM
from mlapp.errors import ProjectError
from mlapp.images import bytecode, dependencies
from mlapp.images.base import Base
from mlapp.images.build_job import BuildJob
from mlapp.images.hard_links import hard_link_or_copy
from mlapp.images.image_spec import APP, LayerCopy


def lay_out_layer_files(job: BuildJob, base: Base, folder: Path) -> None:
    """Write all files of the layers to `folder`: the environment, the model and the app."""
    packages, *others = job.spec.layers
    lay_out_content_layers(job.bundle, folder, others)
    dependencies.lay_out_dependencies(job, base, folder / packages.source)


def lay_out_content_layers(bundle: Bundle, folder: Path, layers: Sequence[LayerCopy]) -> None:
    """Write the files of the layers that hold no packages to `folder`: model and app."""
    sources = {layer.source for layer in layers}
    folder.mkdir(parents=True, exist_ok=True)
    if "model" in sources:
        shutil.copytree(bundle.folder / MODEL, folder / "model", copy_function=hard_link_or_copy)
    if "app" in sources:
        app = folder / "app"
        shutil.copytree(bundle.folder / CODE, app / CODE, symlinks=True, copy_function=hard_link_or_copy)
        for name in (MANIFEST, REQUIREMENTS, SBOM):
            hard_link_or_copy(bundle.folder / name, app / name)
        _compile_layer_code(bundle, app / CODE)


def _compile_layer_code(bundle: Bundle, code: Path) -> None:
    """Compile the user's code, so that a syntax error in the app is reported now rather than at startup."""
    app = locate_app(bundle.settings.app, code).file
    if app.suffix == ".py":
        try:
            compile(app.read_bytes(), str(app), "exec", dont_inherit=True)
        except SyntaxError as error:
            text = (error.text or "").strip()
            raise ProjectError(f"{app.name}:{error.lineno}: {error.msg}: {text}", "Fix that line.") from None
    python = bytecode.find_bytecode_interpreter(bundle.manifest.python, bundle.settings.image)
    if python is not None:
        files = sorted(path.relative_to(code) for path in code.rglob("*.py") if not path.is_symlink())
        bytecode.compile_bytecode_files(files, code, f"{APP}/{CODE}", python)
