"""The command line: one file per command."""

from mlapp.distribution import require_own_distribution

require_own_distribution()
