"""Creates an ASGI application from an app."""

from __future__ import annotations

from typing import Any

from mlapp.app import App
from mlapp.config import Serve
from mlapp.model import TrainedModel
from mlapp.monitoring.recording import open_recording_place
from mlapp.pipeline import Pipeline
from mlapp.serving import routes
from mlapp.serving.application import Application
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import load_served_model
from mlapp.serving.monitoring import monitor_endpoint
from mlapp.serving.observability.tracing import make_tracing
from mlapp.store import Store


def create_asgi(
    app: App | Pipeline,
    *,
    model: str | int | TrainedModel = "latest",
    settings: Serve | None = None,
    store: Store | None = None,
    api: Any = None,
) -> Application:
    """An ASGI application that serves an app's model: for uvicorn, or to mount in your own FastAPI application.

        api = FastAPI()
        api.mount("/digits", create_asgi(app))

    Args:
        model: a version, an alias or `latest` of the store; or the result of `app.train()`.
        settings: of the `serve:` section; those of mlapp.yaml in the app's folder when absent.
        store: the store of the version; the app's own when absent.
        api: a FastAPI or other ASGI application, which answers all other routes.

    A version of the store is loaded when the server starts, or at the first request if the application is mounted in
    another one. So app.py can call this and `mlapp train` can import it. Until there is a version, requests get 503.

    Raises:
        ConfigError: mlapp.yaml is wrong.
    """
    if settings is None:
        settings = app.settings.serve if isinstance(app, App) else Serve()
    application = Application(settings, api, make_tracing(app.name))

    def add_model() -> None:
        endpoint = _make_asgi_endpoint(application, app, model, store, settings)
        routes.add_endpoint_routes(application, endpoint)
        if isinstance(app, App):
            is_stored = not isinstance(model, TrainedModel)
            monitor_settings = app.settings.monitor
            place = open_recording_place(monitor_settings, app.store() if store is None else store, app.root, app.name)
            monitor_endpoint(application, endpoint, monitor_settings, place if is_stored else None)

    if isinstance(model, TrainedModel):
        add_model()
    else:
        routes.add_server_routes(application)
        application.defer_models(add_model)
    return application


def _make_asgi_endpoint(
    application: Application,
    app: Pipeline,
    model: str | int | TrainedModel,
    store: Store | None,
    settings: Serve,
) -> Endpoint:
    """Load the model of an app to serve.

    Raises:
        UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
    """
    served_model = load_served_model(app, model, store, settings)
    return Endpoint(app, served_model, settings, application.metrics, tracing=application.tracing)
