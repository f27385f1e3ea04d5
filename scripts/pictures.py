"""Render the README's pictures: a terminal session, and the server's page in headless Chromium (`chromium`)."""

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
    draw_terminal(PICTURES / "terminal.svg")
    take_page_screenshot(PICTURES / "page.png")


def draw_terminal(picture: Path) -> None:
    """Run the demo in a pseudo-terminal, and draw its output."""
    output = bytearray()

    def copy_output(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        output.extend(data)
        return data

    pty.spawn([sys.executable, str(Path(__file__).with_name("demo.py"))], copy_output)
    lines = [_strip_overwritten_text(line) for line in output.decode().replace("\r\n", "\n").split("\n")]
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi("\n".join(line for line in lines if not re.search("request_id|save …", line))))
    console.save_svg(str(picture), title="from an empty folder to an answer over HTTP")


def take_page_screenshot(picture: Path) -> None:
    """Train and serve the basic template, and take a screenshot of the page."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "digits"
        subprocess.run([sys.executable, "-m", "mlapp", "init", "digits"], cwd=folder, check=True)
        subprocess.run([sys.executable, "-m", "mlapp", "train"], cwd=project, check=True)
        server = subprocess.Popen(
            [sys.executable, "-m", "mlapp", "serve", "--port", "0"], cwd=project, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            url = next(match.group() for line in server.stderr if (match := re.search(r"http://\S+", line)))
            profile = f"--user-data-dir={folder}/chromium"
            subprocess.run([*CHROMIUM, profile, f"--screenshot={picture}", url], check=True)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def _strip_overwritten_text(line: str) -> str:
    """The final state of a line, without the text that a spinner has overwritten."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-HJKSTfhln]", "", line)
    return plain.rpartition("\r")[2]


if __name__ == "__main__":
    main()
