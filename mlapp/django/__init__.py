"""An app's model in a Django site (extra `django`).

INSTALLED_APPS = [..., "mlapp.django"]
MLAPP = {"app": "app:app", "model": "production"}

urlpatterns = [path("m/", include("mlapp.django.urls"))]
"""

from __future__ import annotations

from typing import Any

__all__ = ["load_model", "predict"]


def predict(inputs: Any) -> list[Any]:
    """Predictions for a record, records, rows, columns or a DataFrame: one entry per row, as JSON values.

    For the site's own views. Uses the same loaded model as the URLs.

    Raises:
        InputError: the inputs do not fit the schema. UserCodeError: the app's code raised.
        TimeoutError: the model was busy for longer than `serve.timeout`. MlappError: the model cannot be loaded.
    """
    from mlapp.django.model_site import open_model_site

    return open_model_site().host.predict(inputs)


def load_model() -> None:
    """Load the model now instead of at the first request. Call it in wsgi.py for `gunicorn --preload`.

    Raises:
        UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
    """
    from mlapp.django.model_site import open_model_site

    open_model_site().host.load_model()
