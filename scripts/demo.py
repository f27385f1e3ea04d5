"""Demonstrate mlapp from an empty folder to an answer over HTTP: `make demo`."""

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
    """Create a project, train it, serve it, request a prediction, and print the next steps."""
    with tempfile.TemporaryDirectory(prefix="mlapp-demo-") as folder:
        run_command("mlapp init digits", Path(folder))
        project = Path(folder) / "digits"
        run_command("mlapp train", project)
        run_command("mlapp models list", project)
        print_command("mlapp serve --port 0 &")
        plain = {**os.environ, "MLAPP_MONITOR__LOG": "off"}  # the demo installs no packages for the prediction log
        server = subprocess.Popen(
            split_command("mlapp serve --port 0"), cwd=project, stderr=subprocess.PIPE, text=True, env=plain
        )
        try:
            request_prediction(wait_for_url(server), project)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)
    print("\nInstall:    pip install '.[sklearn,monitor]'")
    print("Your turn:  mlapp init digits && cd digits && mlapp train && mlapp serve")
    print("Next:       docs/app.md (write your own app), docs/serving.md, docs/kubernetes.md")


def request_prediction(url: str, project: Path) -> None:
    """Send the example of the model's schema, and print the answer."""
    manifest = json.loads(subprocess.check_output(split_command("mlapp models show --json"), cwd=project))
    example = {field["name"]: field["example"] for field in manifest["schema"]["features"]["fields"]}
    body = json.dumps({"inputs": [example]})
    print_command(f"curl {url}/predict -H 'Content-Type: application/json' -d '{body[:60]} …'")
    request = urllib.request.Request(
        f"{url}/predict", json.dumps({"inputs": [example]}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        print(response.read().decode())


def wait_for_url(server: subprocess.Popen[str]) -> str:
    """The URL that the server prints when it is ready. Passes its output on."""
    assert server.stderr is not None
    for line in server.stderr:
        print(line, end="")
        if "http://" in line:
            return line.split("http://")[1].split("/")[0].join(("http://", ""))
    sys.exit("The server did not start.")


def run_command(line: str, folder: Path) -> None:
    """Print a command, and run it."""
    print_command(line)
    subprocess.run(split_command(line), cwd=folder, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})


def print_command(line: str) -> None:
    """Print a command like in a shell."""
    print(f"\n$ {line}", flush=True)


def split_command(line: str) -> list[str]:
    """The arguments that run `mlapp …` with this Python."""
    return [sys.executable, "-m", *shlex.split(line)]


if __name__ == "__main__":
    main()
