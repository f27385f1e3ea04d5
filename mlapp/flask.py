"""An app's model as a Flask blueprint (extra `flask`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request

from mlapp.app import App
from mlapp.embed.answers import PATHS, ModelSite
from mlapp.embed.environ import read_environ
from mlapp.embed.host import ModelHost

if TYPE_CHECKING:
    from mlapp.config import Serve
    from mlapp.model import TrainedModel
    from mlapp.store import Store

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""All methods. The model's site answers with a problem if a path does not support the method."""


class ModelBlueprint(Blueprint):
    """A blueprint that also predicts for the site's own views."""

    def __init__(self, name: str, host: ModelHost) -> None:
        super().__init__(name, __name__)
        self._host = host

    def predict(self, inputs: Any) -> list[Any]:
        """Predictions for a record, records, rows, columns or a DataFrame: one entry per row, as JSON values.

        Raises:
            InputError: the inputs do not fit the schema. UserCodeError: the app's code raised.
            TimeoutError: the model was not free within `serve.timeout`. MlappError: the model cannot be loaded.
        """
        return self._host.predict(inputs)

    def load_model(self) -> None:
        """Load the model now instead of at the first request, so that the workers of `gunicorn --preload` share it.

        Raises:
            UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
        """
        self._host.load_model()


def blueprint(
    app: App,
    model: str | int | TrainedModel = "production",
    *,
    name: str | None = None,
    settings: Serve | None = None,
    store: Store | None = None,
    follow: bool = False,
) -> ModelBlueprint:
    """A blueprint with the paths of `create_wsgi`.

        site = Flask(__name__)
        site.register_blueprint(blueprint(app, model="production"), url_prefix="/digits")

    Args:
        model, settings, store, follow: as for `mlapp.wsgi.create_wsgi`.
        name: of the blueprint; the app's name when absent.

    Raises:
        ConfigError: mlapp.yaml is wrong. UsageError: `follow` with a fixed version.
    """
    host = ModelHost(app, model, settings, store, follow)
    site = ModelSite(host)
    model_blueprint = ModelBlueprint(name or app.name.replace(".", "_"), host)

    def answer_flask_request(path: str) -> Response:
        answer = site.answer_request(read_environ(request.environ, path))
        body = answer.body if answer.stream is None else answer.iterate_body()
        return Response(body, answer.status, answer.list_headers())

    for path in PATHS:
        model_blueprint.add_url_rule(
            path,
            endpoint=path.replace("/", "_"),
            view_func=answer_flask_request,
            defaults={"path": path},
            methods=METHODS,
            provide_automatic_options=False,
        )
    return model_blueprint
