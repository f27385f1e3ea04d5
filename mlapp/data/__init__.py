"""Data sources: databases, files and object stores, each a plain function that returns a table.

The sources are `sql/`, `files/`, `mongo`, `redis` and `dynamodb`, each with a function `source` that an entry point
`mlapp.sources` in pyproject.toml names. The sources share the other modules.
"""
