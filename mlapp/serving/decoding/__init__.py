"""Decodes request bodies: from bytes to features."""
