"""Makes training reproducible: fixes the random numbers while data is split, and a model is built, fitted and
evaluated.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SEED = 0
TORCH_SEED = 67280421310721
"""PyTorch's initial seed in a new process: a model function that imports PyTorch draws the same weights every time."""


@contextmanager
def fix_seeds() -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's generators in this block, and restore their state after it.

    Initial weights, dropout, `DataFrame.sample`, and functions of scikit-learn without a `random_state` use these
    generators.
    """
    state = random.getstate()
    random.seed(SEED)
    # Don't import them here: that would slow every training, and an unused library draws no numbers.
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state() if torch else None
    if numpy:
        numpy.random.seed(SEED)
    if torch:
        torch.manual_seed(TORCH_SEED)
    try:
        yield
    finally:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
