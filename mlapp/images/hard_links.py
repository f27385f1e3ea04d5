"""Hard links instead of copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def hard_link_or_copy(source: str | Path, target: str | Path) -> None:
    """Create a hard link, or a copy across file systems. Afterwards, neither file may be modified."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
