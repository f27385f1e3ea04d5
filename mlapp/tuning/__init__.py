"""Tuning: a search with Optuna over the parameters that the stages' signatures declare."""

from mlapp.tuning.objective import READING, Judge
from mlapp.tuning.search import evaluate_search_trial, search_parameters
from mlapp.tuning.search_page import write_search_page
from mlapp.tuning.spaces import Space, list_searchable_spaces, list_spaces
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
    "evaluate_search_trial",
    "list_searchable_spaces",
    "list_spaces",
    "require_optuna",
    "search_parameters",
    "write_search_page",
]
