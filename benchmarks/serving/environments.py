"""Creates the virtual environments of peers, in a cache outside the repository."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"
CACHE = Path(os.environ.get("MLAPP_BENCH_CACHE", Path.home() / ".cache" / "mlapp-bench"))


def install_environment(name: str) -> Path:
    """Install benchmarks/peers/NAME/requirements.txt if it has changed; returns the environment's folder `bin`.

    Raises:
        subprocess.CalledProcessError: uv could not install it; its message is on stderr.
    """
    requirements = PEERS / name / "requirements.txt"
    folder = CACHE / name
    stamp = folder / "requirements.sha256"
    content = requirements.read_bytes()
    if b"--editable" in content:  # this checkout: the environment also depends on its path and dependencies
        content += str(ROOT).encode() + (ROOT / "pyproject.toml").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing {name} …", file=sys.stderr)
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", str(folder), "--requirement", str(requirements)]
        subprocess.run(install, check=True, cwd=ROOT)
        stamp.write_text(digest)
    return folder / "bin"


def make_server_variables(bin_folder: Path) -> dict[str, str]:
    """The environment variables of every server: its programs first in PATH, and the shared model importable.

    Each server gets one numeric thread, because the model is tiny, and the load generator needs the other core.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    return {
        **inherited,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(PEERS / "model"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
