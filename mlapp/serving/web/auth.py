"""API keys: a client sends one as `X-API-Key`, or as `Authorization: Bearer …`."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from mlapp.errors import ConfigError
from mlapp.serving.web.problems import HttpError


class Keys:
    """The accepted keys. Without keys, every request passes."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]
        if not all(key.strip() for key in keys):
            raise ConfigError(
                "A key of serve.api_keys is blank.", "Set each key to a non-empty string, or remove the setting."
            )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def is_allowed(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request passes. Compares with every key in constant time."""
        if not self._keys:
            return True
        key = headers.get(b"x-api-key")
        if key is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            key = token.strip() if scheme.lower() == b"bearer" else b""
        # A sum instead of any(), so that the time does not reveal which key matches.
        return bool(sum(hmac.compare_digest(key, accepted_key) for accepted_key in self._keys))

    def check_key(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request without a valid key.

        Raises:
            HttpError: 401, no key or a wrong one.
        """
        if not self.is_allowed(headers):
            raise HttpError(
                401,
                "Send a valid API key as X-API-Key or as a bearer token.",
                headers=[(b"www-authenticate", b'Bearer realm="mlapp"')],
            )
