"""Resolves references to versions: a number, an alias, or `latest`, which skips held versions."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import islice

import msgspec

from mlapp.errors import UsageError, suggest_nearest
from mlapp.plain_numbers import parse_plain_integer
from mlapp.store.aliases import Aliases, is_alias_name
from mlapp.store.manifests import Manifests
from mlapp.store.names import LATEST
from mlapp.store.numbered_names import format_number_name, parse_number_names
from mlapp.store.storage import Storage

CHALLENGER = "challenger"
"""The alias of a version that monitoring has trained. Unlike other aliases, it does not release a held version."""
HELD = "held"
"""The key in a manifest's origin that prevents the version from being `latest` until it is released."""


class References:
    """The references to the versions in a store."""

    def __init__(self, storage: Storage, manifests: Manifests, aliases: Aliases) -> None:
        self._storage = storage
        self._manifests = manifests
        self._aliases = aliases

    def resolve_reference(self, app: str, reference: str | int) -> int:
        """Resolve a number, an alias or `latest` to a number.

        Raises:
            UsageError: the version or alias does not exist; the message suggests the nearest ones.
        """
        number = parse_plain_integer(str(reference).removeprefix("v"))
        text = str(reference if number is None else number)
        if number is None and is_alias_name(text):
            target = self._aliases.find_alias_target(app, text)  # cheap, because servers poll aliases
            if target is not None:
                return target
        if number is not None:
            if self._manifests.has_version(app, number):
                return number
            newest = sorted(islice(self._manifests.iterate_newest(app), 10))
            number_list = ", ".join(map(str, newest)) or "none"
            raise UsageError(
                f"'{app}' has no version {text}; it has {number_list}.",
                "See `mlapp models list`, or train one: `mlapp train`.",
            )
        if text == LATEST:
            for number in self._manifests.iterate_newest(app):
                if not self._is_held(app, number):
                    return number
            raise UsageError(f"'{app}' has no version in {self._storage!r} yet.", "Train one: `mlapp train`.")
        aliases = self._aliases.list_alias_targets(app, [])
        alias_list = ", ".join(sorted(aliases)) or "none"
        raise UsageError(
            f"'{app}' has no alias '{text}'; it has {alias_list}.{suggest_nearest(text, (*aliases, LATEST))}",
            f"Use a version or alias that exists, or create it: `mlapp models promote VERSION {text}`.",
        )

    def release_held_version(self, app: str, number: int) -> None:
        """Allow a held version to be `latest`."""
        if self._is_held(app, number):
            mark = msgspec.json.encode({"released": datetime.now(timezone.utc)})
            self._storage.create_key(f"{app}/released/{format_number_name(number)}", mark)

    def _is_held(self, app: str, number: int) -> bool:
        """Whether a version is held until its promotion."""
        if HELD not in self._manifests.read_manifest(app, number).origin:
            return False
        return number not in parse_number_names(self._storage.list_names(f"{app}/released"))
