"""Returns memory to the operating system, because allocators keep the memory of released objects."""

from __future__ import annotations

import ctypes
import sys


def return_free_memory() -> None:
    """Return the free memory of Arrow, if it is loaded, and of the C library, if it is GNU's."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
