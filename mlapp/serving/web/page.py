"""The page at `/` to try the model: one self-contained file, which requests `model` for its content."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def load_model_page() -> bytes:
    return (Path(__file__).parent / "page.html").read_bytes()
