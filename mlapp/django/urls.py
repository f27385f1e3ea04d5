"""The paths of the model: `path("m/", include("mlapp.django.urls"))`.

Their names are the paths, as in `reverse("mlapp:predict")`.
"""

from __future__ import annotations

from django.urls import path

from mlapp.django.views import answer_path
from mlapp.embed.answers import PATHS

app_name = "mlapp"
urlpatterns = [
    path(place[1:], answer_path, {"path": place}, name=place.strip("/"))
    for place in sorted(PATHS, reverse=True)  # `reverse` uses the last path of a name: the one without a slash
]
