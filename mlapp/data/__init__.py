"""Data sources: databases, files and object stores, each a plain function that returns a table."""
