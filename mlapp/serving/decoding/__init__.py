"""Request bodies: from bytes to features."""
