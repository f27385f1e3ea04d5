"""The main job, from an empty folder to an answer over HTTP. `make demo` runs it; it ends by itself."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path


def main() -> None:
    """Scaffold, train, serve, ask, and say where to look next."""
    with tempfile.TemporaryDirectory(prefix="mlapp-demo-") as folder:
        run("mlapp init digits", Path(folder))
        project = Path(folder) / "digits"
        run("mlapp train", project)
        run("mlapp models list", project)
        show("mlapp serve --port 0 &")
        plain = {**os.environ, "MLAPP_MONITOR__LOG": "off"}  # the demo installs no packages for the prediction log
        server = subprocess.Popen(
            command("mlapp serve --port 0"), cwd=project, stderr=subprocess.PIPE, text=True, env=plain
        )
        try:
            ask(url_of(server), project)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
    print("\nYour turn:  mlapp init digits && cd digits && mlapp train && mlapp serve")
    print("Next:       docs/app.md (write your own app), docs/serving.md, docs/kubernetes.md")


def ask(url: str, project: Path) -> None:
    """Send the model's own example, and print what comes back."""
    manifest = json.loads(subprocess.check_output(command("mlapp models show --json"), cwd=project))
    example = {field["name"]: field["example"] for field in manifest["schema"]["features"]["fields"]}
    shown = json.dumps({"inputs": [example]})
    show(f"curl {url}/predict -H 'Content-Type: application/json' -d '{shown[:60]} …'")
    request = urllib.request.Request(
        f"{url}/predict", json.dumps({"inputs": [example]}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        print(response.read().decode())


def url_of(server: subprocess.Popen[str]) -> str:
    """The address that the server prints once it is ready; what it says is passed on."""
    assert server.stderr is not None
    for line in server.stderr:
        print(line, end="")
        if "http://" in line:
            return line.split("http://")[1].split("/")[0].join(("http://", ""))
    sys.exit("The server did not start.")


def run(line: str, folder: Path) -> None:
    """Show a command, and run it as the shell would."""
    show(line)
    subprocess.run(command(line), cwd=folder, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})


def show(line: str) -> None:
    """Print a command as it would be typed."""
    print(f"\n$ {line}", flush=True)


def command(line: str) -> list[str]:
    """`mlapp …` as run by this Python."""
    return [sys.executable, "-m", *shlex.split(line)]


if __name__ == "__main__":
    main()
