"""Docker Compose, of whichever generation is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.core_install import leave_out


def compose(file: Path, *arguments: str) -> str:
    """Run Compose on a file; returns what it prints. The first generation does not know a project's name in it."""
    command = ["docker", "compose"]
    if subprocess.run([*command, "version"], capture_output=True).returncode:
        command = ["docker-compose"]
        project = yaml.safe_load(file.read_text())
        command += ["-p", project.pop("name")]
        file = file.with_name("compose.v1.yaml")
        file.write_text(yaml.safe_dump(project))
    try:
        ran = subprocess.run([*command, "-f", str(file), *arguments], capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        leave_out("needs Docker Compose: run scripts/ci/docker.sh")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
