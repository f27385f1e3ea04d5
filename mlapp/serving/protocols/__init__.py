"""Protocols of other servers, so that their clients work unchanged."""
