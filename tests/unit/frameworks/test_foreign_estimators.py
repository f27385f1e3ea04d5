"""Estimators of other packages inside a scikit-learn pipeline: declared once, saved and loaded by skops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from mlapp.errors import ModelError
from mlapp.frameworks.sklearn import SklearnFramework

ROWS = np.random.default_rng(0).random((60, 4))
CLASSES = (ROWS[:, 0] > 0.5).astype(int)


class Doubled(TransformerMixin, BaseEstimator):
    """A step of the user's own."""

    def fit(self, rows: Any, target: Any = None) -> Doubled:
        return self

    def transform(self, rows: Any) -> Any:
        return np.asarray(rows) * 2


STEPS = {
    "xgboost": (XGBClassifier(n_estimators=2), ["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]),
    "lightgbm": (
        LGBMClassifier(n_estimators=2, verbose=-1),
        ["collections.OrderedDict", "lightgbm.basic.Booster", "lightgbm.sklearn.LGBMClassifier"],
    ),
    "own": (make_pipeline(Doubled(), StandardScaler(), XGBClassifier(n_estimators=2)), None),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_another_package_is_declared_as_the_error_says(step: str, tmp_path: Path) -> None:
    estimator, names = STEPS[step]
    model = make_pipeline(StandardScaler(), estimator).fit(ROWS, CLASSES)
    with pytest.raises(ModelError, match="not declared trusted") as raised:
        SklearnFramework().save(model, tmp_path, "skops", ())
    output = raised.value.todo.partition("trusted=[")[2].partition("]")[0].replace("'", "").split(", ")
    assert names is None or output == names
    SklearnFramework().save(model, tmp_path, "skops", output)
    assert (SklearnFramework().load(tmp_path, "skops", output).predict(ROWS) == model.predict(ROWS)).all()
