"""Data sources: databases, files and object stores, each a plain function that returns a table.

The sources are `sql/`, `files/`, `mongo`, `redis` and `dynamodb`, each with a function `source`. The entry points
`mlapp.sources` in pyproject.toml name them; the other modules are what they share.
"""
