"""The page to try the model at `/`: one file without anything from elsewhere; it asks `model` for what it shows."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def model_page() -> bytes:
    return (Path(__file__).parent / "page.html").read_bytes()
