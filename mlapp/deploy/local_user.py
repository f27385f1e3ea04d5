"""The name of the user who deploys, for records and locks of platforms that do not know it."""

from __future__ import annotations

import getpass


def read_local_user() -> str | None:
    """The name of this process's user; None in a container without an entry for its user ID."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        return None
