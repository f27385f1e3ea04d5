"""The model of a Django site in this process."""

from __future__ import annotations

from typing import Any

from mlapp.django.site_settings import import_app, read_site_settings
from mlapp.embed.answers import ModelSite
from mlapp.embed.host import ModelHost

_site_cache: dict[str, ModelSite] = {}


def open_model_site() -> ModelSite:
    """The site of the app that `MLAPP` names. It loads the model at the first request.

    Raises:
        ConfigError: `MLAPP` or mlapp.yaml is wrong. ProjectError, UserCodeError: the app cannot be imported.
    """
    site = _site_cache.get("site")
    if site is None:
        settings = read_site_settings()
        new_site = ModelSite(ModelHost(import_app(settings), settings.model, follow=settings.follow))
        site = _site_cache.setdefault("site", new_site)  # atomic: concurrent threads get the same one
    return site


def forget_model_site(*, setting: str, **_: Any) -> None:
    """Unload the model when a test overrides `MLAPP`."""
    if setting == "MLAPP" and (site := _site_cache.pop("site", None)) is not None:
        site.host.close_model()
