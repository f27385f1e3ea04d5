from django.urls import include, path

from web.views import show_page

urlpatterns = [
    path("", show_page),
    path("", include("mlapp.django.urls")),  # /predict, /model, /readyz, /metrics, ...
]
