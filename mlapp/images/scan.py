"""Scanning an image for known vulnerabilities, with the scanner that is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from mlapp.images.build import Image
from mlapp.images.engine import ImageError

SCANNERS = {
    "trivy": ["image", "--quiet", "--exit-code", "1", "--severity", "HIGH,CRITICAL", "--ignore-unfixed"],
    "grype": ["--quiet", "--fail-on", "high", "--only-fixed"],
}
"""Arguments with which each scanner exits 1 when it finds a serious vulnerability that a newer version fixes."""


def find_scanner() -> list[str]:
    """The command of the first scanner that is installed, to which an image's name is added.

    Raises:
        ImageError: none is.
    """
    for name, arguments in SCANNERS.items():
        program = shutil.which(name)
        if program is not None:
            return [program, *arguments]
    raise ImageError(
        "No scanner is installed.", f"Install one of {', '.join(SCANNERS)}; the bundle's sbom.cdx.json lists it all."
    )


def scan_image(image: Image, scanner: list[str]) -> None:
    """Scan; the scanner prints its own report, to stderr.

    Raises:
        ImageError: it found something grave.
    """
    if subprocess.run([*scanner, image.reference], check=False, stdout=sys.stderr).returncode:  # noqa: S603
        raise ImageError(
            f"{Path(scanner[0]).name} found grave vulnerabilities in {image.reference}, or could not scan it.",
            "Update what it names: mlapp build --upgrade, or a newer image.base.",
        )
