"""Valid names in a store. Those in manifests are untrusted, and become paths, keys and requirements."""

from __future__ import annotations

import re

from mlapp.pipeline.pipeline import NAME as APP

LATEST = "latest"
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
FOLDER = re.compile(r"files/[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Name of a framework or distribution; a format can also be empty."""
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,63}")


def is_relative_path(name: str) -> bool:
    """Whether a name is a relative path inside a folder on every system: `weights/1.bin`, not `../x`, `/x`, `C:\\x`."""
    return (
        0 < len(name) <= 1024
        and not any(character in name for character in "\\:\0\r\n")
        and all(part not in ("", ".", "..") and part == part.strip() for part in name.split("/"))
    )


__all__ = [
    "ALIAS",
    "APP",
    "FOLDER",
    "LATEST",
    "SHA256",
    "VERSION",
    "WORD",
    "is_relative_path",
]
