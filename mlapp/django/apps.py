"""The Django app `mlapp.django`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.core.signals import setting_changed


class MlappConfig(AppConfig):
    """Registers the system check, and unloads the model when a test overrides the setting."""

    name = "mlapp.django"
    label = "mlapp"
    verbose_name = "mlapp"

    def ready(self) -> None:
        from mlapp.django.checks import run_django_model_check
        from mlapp.django.model_site import forget_model_site

        register(run_django_model_check)
        setting_changed.connect(forget_model_site)
