"""Tuning: a search with Optuna over the parameters that the stages' signatures declare."""

from mlapp.tuning.objective import READING, Judge
from mlapp.tuning.page import write_page
from mlapp.tuning.search import evaluate, search
from mlapp.tuning.spaces import Space, searchable, spaces
from mlapp.tuning.study import Asked, Found, Options, Question, Study, Trial, require_optuna

__all__ = [
    "READING",
    "Asked",
    "Found",
    "Judge",
    "Options",
    "Question",
    "Space",
    "Study",
    "Trial",
    "evaluate",
    "require_optuna",
    "search",
    "searchable",
    "spaces",
    "write_page",
]
