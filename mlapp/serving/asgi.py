"""From an app to an ASGI application."""

from __future__ import annotations

from typing import Any

from mlapp.app import App
from mlapp.config import Serve
from mlapp.model import TrainedModel
from mlapp.pipeline import Pipeline
from mlapp.serving import loaded as models
from mlapp.serving import routes
from mlapp.serving.application import Application
from mlapp.serving.endpoint import Endpoint
from mlapp.serving.loaded import Loaded
from mlapp.serving.tracing import from_environment
from mlapp.store import Store


def create_asgi(
    app: App | Pipeline,
    *,
    model: str | int | TrainedModel = "latest",
    settings: Serve | None = None,
    store: Store | None = None,
    api: Any = None,
) -> Application:
    """An ASGI application that serves an app's model: for uvicorn, or to mount in a FastAPI of your own.

        api = FastAPI()
        api.mount("/digits", create_asgi(app))

    Args:
        model: a version, an alias or `latest` of the store; or what `app.train()` returned.
        settings: of the `serve:` section; its defaults when absent.
        store: where the version is; the one that mlapp.yaml of the current folder names when absent.
        api: a FastAPI or other ASGI application that answers what mlapp has no route for.

    Raises:
        UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
    """
    settings = settings or Serve()
    application = Application(settings, api, from_environment(app.name))
    loaded = load(app, model, store, settings.runtime)
    routes.add(application, Endpoint(app, loaded, settings, application.metrics, tracing=application.tracing))
    return application


def load(app: Pipeline, model: str | int | TrainedModel, store: Store | None = None, runtime: str = "native") -> Loaded:
    """The model to serve.

    Raises:
        UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
    """
    if isinstance(model, TrainedModel):
        return models.of_trained(model)
    if store is None:
        from pathlib import Path

        from mlapp import config
        from mlapp.store import open_store

        root = Path.cwd()
        store = open_store(config.load(root).store, root)
    return models.of_version(app, store.get(app.name, model), runtime)
