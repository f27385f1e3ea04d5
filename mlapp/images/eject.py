"""Write the Dockerfile for users to edit and keep."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from mlapp.bundle import Bundle
from mlapp.images.base import find_base, find_base_python
from mlapp.images.dockerfile import render_dockerfile
from mlapp.images.engine import ImageError, connect_engine, translate_engine_errors
from mlapp.images.image_spec import LAYOUT, choose_image_platforms, make_image_spec
from mlapp.images.layer_files import lay_out_layers
from mlapp.images.source_builds import make_source_builder
from mlapp.reporting import Reporter

LASTING = ("org.opencontainers.image.title", "org.opencontainers.image.source", "mlapp.app", "mlapp.sbom")
"""Labels that stay correct in a kept file. `mlapp build` adds those that change with code and model."""
IGNORED = f"# Of all the project, the build needs the laid out layers alone.\n**\n!{LAYOUT}/**\n"


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
    what = make_image_spec(bundle)
    lasting = {name: value for name, value in what.labels.items() if name in LASTING}
    texts = {} if file.exists() else {file: render_dockerfile(dataclasses.replace(what, labels=lasting))}
    texts |= {} if ignore.exists() else {ignore: IGNORED}
    with connect_engine() as client:
        with translate_engine_errors():
            version = client.version()
        for_ = choose_image_platforms(bundle.settings, platform, f"{version['Os']}/{version['Arch']}")[0]
        base = find_base(client, what, for_, progress)
        home = find_base_python(client, base, what.python)
        progress(f"prepare the dependencies for {for_}")
        try:
            shutil.rmtree(layout, ignore_errors=True)
            compile = make_source_builder(client, base, home, bundle, progress)
            lay_out_layers(bundle, for_, home, layout, warn, what.layers, compile=compile)
            for path, text in texts.items():
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            where = error.filename or root
            raise ImageError(f"{where}: {error.strerror}.", "Check its permissions and space.") from error
    return [*texts, layout]
