"""Scan an image for known vulnerabilities with an installed scanner."""

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
"""Arguments that make each scanner exit with 1 if it finds a serious vulnerability that has a fix."""


def find_scanner() -> list[str]:
    """The command of the first installed scanner, to be completed by an image's name.

    Raises:
        ImageError: no scanner is installed.
    """
    for name, arguments in SCANNERS.items():
        program = shutil.which(name)
        if program is not None:
            return [program, *arguments]
    raise ImageError(
        "No scanner is installed.",
        f"Install one of {', '.join(SCANNERS)}; the bundle's sbom.cdx.json lists all packages.",
    )


def scan_image(image: Image, scanner: list[str]) -> None:
    """Scan an image; the scanner prints its report to stderr.

    Raises:
        ImageError: the scanner found a serious vulnerability.
    """
    if subprocess.run([*scanner, image.reference], check=False, stdout=sys.stderr).returncode:  # noqa: S603
        raise ImageError(
            f"{Path(scanner[0]).name} found serious vulnerabilities in {image.reference}, or could not scan it.",
            "Update the packages it lists: mlapp build --upgrade, or a newer image.base.",
        )
