"""The setting `MLAPP` of a Django site."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Annotated

from django.conf import settings

from mlapp.app import App
from mlapp.config import END, Section, decode_section, describe_text
from mlapp.errors import ConfigError, ProjectError, UserCodeError, suggest_nearest, translate_user_errors

EXAMPLE = 'MLAPP = {"app": "app:app", "model": "production"}'


class SiteSettings(Section, frozen=True):
    """The app and the version that the site serves.

    Attributes:
        app: the module and the name of the App in it, such as `app:app`.
        model: a version, an alias or `latest`.
        follow: load another version when the alias moves, within `serve.refresh` seconds.
    """

    app: Annotated[str, describe_text(r"^[\w.]+:\w+" + END, "a module, : and the App's name in it", "app:app")]
    model: str = "production"
    follow: bool = False

    @property
    def module(self) -> str:
        return self.app.partition(":")[0]

    @property
    def variable(self) -> str:
        return self.app.partition(":")[2]


def read_site_settings() -> SiteSettings:
    """The setting `MLAPP`.

    Raises:
        ConfigError: it is missing, has an unknown key, or a value of the wrong type.
    """
    raw = getattr(settings, "MLAPP", None)
    if not isinstance(raw, dict):
        raise ConfigError("The Django settings have no dictionary MLAPP.", f"Add it: {EXAMPLE}.")
    try:
        return decode_section(SiteSettings, raw, "MLAPP")
    except ConfigError as error:
        what = error.what.partition(": ")[2]
        raise ConfigError(f"The Django settings: {what}", f"Write it as: {EXAMPLE}.") from None


def import_app(site: SiteSettings) -> App:
    """The App that `MLAPP["app"]` names.

    Raises:
        ProjectError: no such module, or no App of that name in it. UserCodeError: the import raised.
    """
    try:
        with translate_user_errors(f"Importing {site.module}", passed_on=(ModuleNotFoundError,)):
            module = importlib.import_module(site.module)
    except ModuleNotFoundError as error:
        if error.name is None or not (site.module == error.name or site.module.startswith(f"{error.name}.")):
            raise UserCodeError(f"Importing {site.module}", error) from error
        raise ProjectError(
            f"MLAPP['app'] is '{site.app}', but there is no module '{error.name}'.",
            "Give the App's module as an import path: `app:app` is `app` in app.py, next to manage.py.",
        ) from None
    app = getattr(module, site.variable, None)
    if not isinstance(app, App):
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        raise ProjectError(
            f"MLAPP['app'] is '{site.app}', but {site.module} has no App '{site.variable}'."
            f"{suggest_nearest(site.variable, apps)}",
            f"It has: {', '.join(apps) or 'none'}.",
        )
    return app


def find_app_file(site: SiteSettings) -> Path | None:
    """The file of the app's module, without importing it; None if the module does not exist."""
    try:
        spec = importlib.util.find_spec(site.module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None
