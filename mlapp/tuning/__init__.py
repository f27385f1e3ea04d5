"""Tuning: a search with Optuna over the parameters that the stages' signatures declare."""

from mlapp.tuning.objective import Judge
from mlapp.tuning.page import write_page
from mlapp.tuning.search import evaluate, search
from mlapp.tuning.spaces import Space, spaces
from mlapp.tuning.study import Asked, Found, Options, Question, Study, Trial

__all__ = [
    "Asked",
    "Found",
    "Judge",
    "Options",
    "Question",
    "Space",
    "Study",
    "Trial",
    "evaluate",
    "search",
    "spaces",
    "write_page",
]
