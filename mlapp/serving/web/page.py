"""The page at `/` to try the model: one self-contained file, which requests `model` for its content."""

from __future__ import annotations

from functools import cache
from pathlib import Path

POLICY = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
"""The header that limits the page to its own code and this server."""


@cache
def load_model_page() -> bytes:
    return (Path(__file__).parent / "page.html").read_bytes()
