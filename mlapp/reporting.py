"""How a long operation reports to its caller: one line of text at a time."""

from __future__ import annotations

from collections.abc import Callable

Reporter = Callable[[str], None]
"""Gets what happens, as a line for the user."""
