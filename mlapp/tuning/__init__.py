"""Tuning: a search with Optuna over the parameters that the stages' signatures declare."""

from mlapp.tuning.objective import READER_STAGES, TrialEvaluator
from mlapp.tuning.search import evaluate_search_trial, search_parameters
from mlapp.tuning.search_page import write_search_page
from mlapp.tuning.spaces import Space, list_searchable_spaces, list_spaces
from mlapp.tuning.study import Options, PendingTrial, SearchResult, Study, StudyDefinition, Trial, require_optuna

__all__ = [
    "READER_STAGES",
    "Options",
    "PendingTrial",
    "SearchResult",
    "Space",
    "Study",
    "StudyDefinition",
    "Trial",
    "TrialEvaluator",
    "evaluate_search_trial",
    "list_searchable_spaces",
    "list_spaces",
    "require_optuna",
    "search_parameters",
    "write_search_page",
]
