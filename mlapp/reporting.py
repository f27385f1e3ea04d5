"""The type of functions that receive the messages of a long operation."""

from __future__ import annotations

from collections.abc import Callable

Reporter = Callable[[str], None]
"""Receives a line for the user."""
