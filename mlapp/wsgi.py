"""An app's model as a WSGI application (PEP 3333): for gunicorn, uWSGI, mod_wsgi, or a router of another framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from mlapp.app import App
from mlapp.config import Serve
from mlapp.embed.answers import ModelSite
from mlapp.embed.environ import read_environ
from mlapp.embed.host import ModelHost

if TYPE_CHECKING:
    from mlapp.model import TrainedModel
    from mlapp.store import Store

__all__ = ["WsgiApplication", "create_wsgi"]


class WsgiApplication:
    """Answers the paths of a model: `/predict`, `/feedback`, `/monitor`, `/model`, `/metrics` and probes."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._site = ModelSite(host)

    def load_model(self) -> None:
        """Load the model now instead of at the first request, so that the workers of `gunicorn --preload` share it.

        Raises:
            UsageError: no such version or alias. ModelError, StoreError: it cannot be loaded.
        """
        self._host.load_model()

    def close_model(self) -> None:
        """Stop the threads and unload the model. The next request loads it again."""
        self._host.close_model()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._site.answer_request(read_environ(environ))
        start_response(_format_wsgi_status(answer.status), answer.list_headers())
        if environ["REQUEST_METHOD"] == "HEAD":
            return [b""]
        return [answer.body] if answer.stream is None else answer.iterate_body()


@cache
def _format_wsgi_status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def create_wsgi(
    app: App,
    *,
    model: str | int | TrainedModel = "latest",
    settings: Serve | None = None,
    store: Store | None = None,
    follow: bool = False,
) -> WsgiApplication:
    """A WSGI application that answers as `mlapp serve` does.

        application = create_wsgi(app, model="production")  # gunicorn site:application

    Args:
        model: a version, an alias or `latest` of the store; or the result of `app.train()`.
        settings: of the `serve:` section; those of mlapp.yaml in the app's folder when absent.
        store: the store of the version; the app's own when absent.
        follow: load another version when the alias moves, within `serve.refresh` seconds.

    The model is loaded by the first request of each process. Until there is a version, requests get 503.

    Raises:
        ConfigError: mlapp.yaml is wrong.
        UsageError: `follow` with a fixed version.
    """
    return WsgiApplication(ModelHost(app, model, settings, store, follow))
