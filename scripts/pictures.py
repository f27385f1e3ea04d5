"""Render the README's pictures: a real terminal session, and the page in headless Chromium (Debian's `chromium`)."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
CHROMIUM = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--virtual-time-budget=8000", "--window-size=1200,860",
]  # fmt: skip


def main() -> None:
    """Write docs/pictures/terminal.svg and docs/pictures/page.png."""
    PICTURES.mkdir(exist_ok=True)
    terminal(PICTURES / "terminal.svg")
    page(PICTURES / "page.png")


def terminal(picture: Path) -> None:
    """Run the demo on a terminal of its own, and draw what it showed."""
    shown = bytearray()

    def keep(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        shown.extend(data)
        return data

    pty.spawn([sys.executable, str(Path(__file__).with_name("demo.py"))], keep)
    lines = [_last_state(line) for line in shown.decode().replace("\r\n", "\n").split("\n")]
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi("\n".join(line for line in lines if not re.search("request_id|save …", line))))
    console.save_svg(str(picture), title="from an empty folder to an answer over HTTP")


def page(picture: Path) -> None:
    """Train and serve the basic template, and take the page's picture."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "digits"
        subprocess.run([sys.executable, "-m", "mlapp", "init", "digits"], cwd=folder, check=True)
        subprocess.run([sys.executable, "-m", "mlapp", "train"], cwd=project, check=True)
        server = subprocess.Popen(
            [sys.executable, "-m", "mlapp", "serve", "--port", "0"], cwd=project, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            url = next(found.group() for line in server.stderr if (found := re.search(r"http://\S+", line)))
            profile = f"--user-data-dir={folder}/chromium"
            subprocess.run([*CHROMIUM, profile, f"--screenshot={picture}", url], check=True)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def _last_state(line: str) -> str:
    """A line as it stood at the end: what a spinner drew over itself is gone."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-HJKSTfhln]", "", line)
    return plain.rpartition("\r")[2]


if __name__ == "__main__":
    main()
