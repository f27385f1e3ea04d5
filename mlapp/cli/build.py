"""`mlapp build`"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.errors import UsageError

if TYPE_CHECKING:
    from mlapp.bundle import Bundle
    from mlapp.images.build import Image


def build_image(
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    tag: Annotated[
        str | None,
        typer.Option(help="Name of the image, such as registry.example.org/team/digits:1. [app:version-hash]"),
    ] = None,
    push: Annotated[
        bool, typer.Option("--push", help="Push the image to the registry in its name, and print its digest.")
    ] = False,
    platform: Annotated[
        list[str] | None, typer.Option(help="linux/amd64, linux/arm64, or both separated by a comma. [the engine's]")
    ] = None,
    bundle_only: Annotated[
        bool, typer.Option("--bundle-only", help="Write only the bundle, a folder. Does not need Docker.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--output", help="With --bundle-only: the folder to write to. [.mlapp/bundles]")
    ] = None,
    print_dockerfile: Annotated[
        bool, typer.Option("--print-dockerfile", help="Print the build as a Dockerfile, without building.")
    ] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Resolve the requirements again instead of reusing the last result.")
    ] = False,
    scan: Annotated[
        bool, typer.Option("--scan", help="Scan the image with trivy or grype before a push. Exits with 1 on findings.")
    ] = False,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Build the app's container image.

    The image contains the app's code, one model version and their dependencies.

    Examples:

      mlapp build

      mlapp build --model production --tag registry.example.org/team/digits --push

      mlapp build --platform linux/amd64,linux/arm64 --push

      mlapp build --bundle-only
    """
    from mlapp.images.project_image import build_project_image, bundle_project
    from mlapp.project import Project

    project = Project.find(environment=environment)

    if to is not None and not bundle_only:
        raise UsageError(
            "--output is given without --bundle-only.",
            "Add --bundle-only; to name an image, use --tag.",
        )
    if bundle_only or print_dockerfile:
        bundle = bundle_project(
            project, model=model, environment=environment, output=to, upgrade=upgrade, warn=output.print_warning
        )
        if print_dockerfile:
            _print_dockerfile(bundle)
        else:
            _print_bundle(bundle, json)
        return
    with output.show_progress() as report, _show_build_bars() as update_bar:
        images = build_project_image(
            project,
            model=model,
            environment=environment,
            tag=tag,
            platform=platform,
            upgrade=upgrade,
            should_scan=scan,
            should_push=push,
            progress=report,
            warn=output.print_warning,
            bar=update_bar,
        )
    _print_built_images(images, is_pushed=push, json=json)


def _print_dockerfile(bundle: Bundle) -> None:
    from mlapp.images.dockerfile import render_dockerfile
    from mlapp.images.image_spec import make_image_spec

    output.print_text(render_dockerfile(make_image_spec(bundle)))


def _print_bundle(bundle: Bundle, json: bool) -> None:
    if json:
        output.print_json({"bundle": bundle.folder, "hash": bundle.hash, "manifest": bundle.manifest})
    else:
        output.print_result(str(bundle.folder))
        output.print_note(f"Serve it: mlapp serve --bundle {bundle.folder}")


def _print_built_images(images: Sequence[Image], *, is_pushed: bool, json: bool) -> None:
    if json:
        output.print_json([{**_summarize_built_image(image), "layers": image.layers} for image in images])
        return
    first, *others = images
    if is_pushed:
        output.print_result(first.pinned)
        for image in others:
            output.print_note(f"{image.platform}: {image.pinned}")
        output.print_note(f"{first.reference} is in the registry, pinned above by its digest.")
        return
    for image in images:
        output.print_result(image.reference)
    output.print_note(f"{first.reference}, {first.size / 1e6:.0f} MB. Next: mlapp deploy --target docker")


def _summarize_built_image(image: Image) -> dict[str, object]:
    return {name: getattr(image, name) for name in ("reference", "pinned", "id", "digest", "platform", "size")}


@contextmanager
def _show_build_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar per layer on a terminal. Elsewhere show nothing, because each step already prints a line."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def update_bar(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield update_bar
