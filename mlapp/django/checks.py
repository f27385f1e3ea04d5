"""The system check: `manage.py check` reports problems that prevent predictions."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from mlapp.django.site_settings import import_app, read_site_settings
from mlapp.embed.host import check_follow
from mlapp.errors import MlappError


def run_django_model_check(**_: Any) -> list[CheckMessage]:
    """Check that `MLAPP` is valid (`mlapp.E001`), its app can be imported (`mlapp.E002`), and its store has the version
    (`mlapp.E003`). The model is not loaded.
    """
    code = "E001"
    try:
        settings = read_site_settings()
        code = "E002"
        app = import_app(settings)
        code = "E001"
        if settings.follow:
            check_follow(settings.model, app.settings.serve)
        code = "E003"
        store = app.store()
        store.manifest(app.name, store.resolve(app.name, settings.model))
    except MlappError as error:
        return [Error(error.what, hint=error.todo, id=f"mlapp.{code}")]
    return []
