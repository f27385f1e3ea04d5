"""Loads the TLS certificate again when its files change: a certificate is renewed while the server runs."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

log = logging.getLogger("mlapp.serving")
CHECK_INTERVAL = 2.0
"""Seconds between two checks of the files."""


class TlsFiles:
    """The files of the certificate and its key.

    Args:
        context: of the server. New connections use the certificate that it has loaded last.
    """

    def __init__(self, context: ssl.SSLContext, certificate: str, key: str) -> None:
        self._context = context
        self._certificate = certificate
        self._key = key
        self._stamps = self._read_stamps()

    async def watch_changes(self) -> None:
        """Load the files after each change, until this is canceled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            self.load_if_changed()

    def load_if_changed(self) -> bool:
        """Load the certificate if its files have changed; whether it did. A wrong or half-written pair is ignored."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            # In another context first: a certificate without its key would stay in the context of the server. Without
            # a password, OpenSSL asks a person for that of an encrypted key, and the event loop would wait.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._context):
                context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            log.warning("the changed files of serve.tls_cert and serve.tls_key are not used: %s", error)
            return False
        log.info("new connections use the changed certificate of serve.tls_cert")
        return True

    def _read_stamps(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in (self._certificate, self._key):
            try:
                stat = os.stat(path)  # follows the link that Kubernetes replaces when a Secret changes
            except OSError:
                stamps.append(None)
            else:
                stamps.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return stamps
