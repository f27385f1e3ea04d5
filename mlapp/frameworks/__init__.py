"""Adapters to the machine-learning frameworks: fit, evaluate, predict, save and load for each.

Packages add frameworks with an entry point in the group `mlapp.frameworks`, as the built-in ones do.
"""

from mlapp.frameworks.framework import Framework
from mlapp.frameworks.registry import find_framework, find_framework_for_file, get_framework

__all__ = ["Framework", "find_framework", "find_framework_for_file", "get_framework"]
