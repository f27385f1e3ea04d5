"""The paths of the model: `path("m/", include("mlapp.django.urls"))`.

Their names are the paths, as in `reverse("mlapp:predict")`.
"""

from __future__ import annotations

from django.urls import path

from mlapp.django.views import answer_django_request
from mlapp.embed.answers import PATHS

app_name = "mlapp"
urlpatterns = [
    path(model_path[1:], answer_django_request, {"path": model_path}, name=model_path.strip("/"))
    for model_path in sorted(PATHS, reverse=True)  # `reverse` uses the last path of a name: the one without a slash
]
