"""Adapters to the machine-learning frameworks: fit, evaluate, predict, save and load for each.

Others add theirs with an entry point in the group `mlapp.frameworks`; ours use the same door.
"""

from mlapp.frameworks.framework import Framework
from mlapp.frameworks.registry import find_framework, find_framework_for_file, get_framework

__all__ = ["Framework", "find_framework", "find_framework_for_file", "get_framework"]
