"""The types and functions that a skops file can name without a declaration in the app.

The object that a name resolves to decides, not its text: scikit-learn's modules re-export `functools.partial`,
`gzip.GzipFile` and others, so a name such as `sklearn.pipeline.partial` is not scikit-learn's own.

skops trusts further types by default (`skops/io/_trusted_types.py` of 0.16): numbers, texts and containers; dtypes,
ufuncs and bit generators of NumPy; ufuncs of SciPy; and estimators, losses and links of scikit-learn. They take
functions, modules and paths only from the same file. It does not trust methods, `operator.*` and time zones.
"""

from __future__ import annotations

import importlib
from typing import Any

PACKAGES = ("sklearn", "scipy", "numpy")
"""The packages with objects that can be trusted. Nothing else that a file names is imported."""

TYPES = frozenset(
    {
        "numpy.dtype",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.interpolate._bsplines._BSpline",  # from SciPy 1.18
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.impute._iterative._ImputerTriplet",
        "sklearn.metrics._scorer._CurveScorer",
        "sklearn.metrics._scorer._MultimetricScorer",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.metrics._scorer._PredictScorer",
        "sklearn.metrics._scorer._ProbaScorer",
        "sklearn.metrics._scorer._Scorer",
        "sklearn.metrics._scorer._ThresholdScorer",
        "sklearn.model_selection._split._CVIterableWrapper",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._ball_tree.BallTree32",
        "sklearn.neighbors._ball_tree.BallTree64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._kd_tree.KDTree32",
        "sklearn.neighbors._kd_tree.KDTree64",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
    }
)
"""Types that fitted estimators contain, and that no base class distinguishes from other types of their package."""

BASES = {
    "sklearn": (
        "sklearn.base.BaseEstimator",
        "sklearn.gaussian_process.kernels.Kernel",
        "sklearn.metrics._dist_metrics.DistanceMetric32",
        "sklearn.metrics._dist_metrics.DistanceMetric64",
        "sklearn.model_selection._split.BaseCrossValidator",
        "sklearn.model_selection._split._UnsupportedGroupCVMixin",
        "sklearn.model_selection._split.BaseShuffleSplit",
    ),
    "scipy": ("scipy.sparse._matrix.spmatrix", "scipy.sparse._base.sparray"),
}
"""Base classes by package. Classes of the package that extend one of them are trusted."""

FUNCTIONS = frozenset(
    {
        *(f"numpy.{name}" for name in ("amax", "amin", "average", "max", "mean", "median", "min", "std", "sum", "var")),
        *(
            f"scipy.{package}array_api_compat.numpy._aliases.asarray"
            for package in ("_lib.", "_external.", "_lib._external.")
        ),
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_oneway",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.feature_selection._univariate_selection.r_regression",
        "sklearn.utils.validation.check_array",
    }
)
"""Functions that estimators contain by default. They compute with arrays, and take no functions, names or paths."""

PARTIAL = "functools.partial"
"""Histogram boosting that was fitted on categories contains a partial of `check_array`. Loading it calls nothing, and
`loaded_estimator` checks its function.
"""
ABSTRACT = frozenset(
    ("number", "integer", "signedinteger", "unsignedinteger", "inexact", "floating", "complexfloating", "character")
)
"""NumPy's abstract types, which have no values: `make_column_selector(dtype_include=np.number)` contains one."""
VALUES = frozenset(
    (
        "builtins.object",
        "datetime.date",
        "datetime.time",
        "pandas.Interval",
        "pandas._libs.interval.Interval",
        "uuid.UUID",
    )
)
"""Types of plain values that can be categories of an encoder, such as those of `pd.cut`. Their constructors take only
plain values from the file. Names are sufficient here, as these packages do not re-export them for other objects.
"""
METRICS = ("sklearn.metrics._classification", "sklearn.metrics._ranking", "sklearn.metrics._regression")
"""Modules whose public functions are the metrics that a scorer calls."""


def is_trusted_type(name: str) -> bool:
    """Whether the name refers to a type or function of `PACKAGES` that cannot run code chosen by the file.

    Args:
        name: `module.Name`, as skops writes it.
    """
    if name == PARTIAL or name in VALUES:
        return True
    module, _, attribute = name.rpartition(".")
    package = module.partition(".")[0]
    if package not in PACKAGES:
        return False
    target = resolve_trusted_name(name)
    if target is None or (target.__module__, getattr(target, "__qualname__", attribute)) != (module, attribute):
        return False
    if name in TYPES or (module == "numpy" and attribute in ABSTRACT):
        return isinstance(target, type)
    if isinstance(target, type):
        return attribute.startswith("PyFunc") is False and issubclass(target, _list_trusted_base_classes(package))
    return name in FUNCTIONS or (module in METRICS and callable(target) and not attribute.startswith("_"))


def resolve_trusted_name(name: str) -> Any:
    """The object with the name `module.Name`; None if it does not exist."""
    module, _, attribute = name.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return None
    return target if getattr(target, "__module__", None) else None


def _list_trusted_base_classes(package: str) -> tuple[type, ...]:
    """The classes of `BASES` that the installed release has."""
    resolved = (resolve_trusted_name(name) for name in BASES.get(package, ()))
    return tuple(base for base in resolved if isinstance(base, type))
