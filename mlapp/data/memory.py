"""Returns memory to the operating system: Arrow's allocator keeps what a released table took."""

from __future__ import annotations

import sys


def return_free_memory() -> None:
    """Return the memory that Arrow does not use any more, if Arrow is loaded."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
