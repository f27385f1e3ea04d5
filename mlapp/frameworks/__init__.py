"""Adapters to the machine-learning frameworks: fit, evaluate, predict, save and load for each.

Others add theirs with an entry point in the group `mlapp.frameworks`; ours use the same door.
"""

from mlapp.frameworks.framework import Framework
from mlapp.frameworks.registry import for_file, named, of

__all__ = ["Framework", "for_file", "named", "of"]
