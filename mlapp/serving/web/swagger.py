"""Swagger UI at `/docs`: FastAPI's page, with the assets of the package fastapi-offline in place of a CDN's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mlapp.serving.web.problems import HttpError

MEDIA = {
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
    "favicon.png": b"image/png",
}


KEY = b"""request => {
        const key = sessionStorage.getItem("mlapp-key");
        if (key && !request.headers["X-API-Key"]) request.headers["X-API-Key"] = key;
        return request;
    }"""
"""Sends the API key that was given to the page at `/` in this tab: without it, the document itself is refused."""
BEGIN = b"SwaggerUIBundle({"


@dataclass(frozen=True)
class Asset:
    """A file of Swagger UI."""

    content: bytes
    media: bytes


@cache
def docs_page() -> bytes:
    """The page. Its links are relative: it works under any prefix, and behind a proxy that adds one."""
    from fastapi.openapi.docs import get_swagger_ui_html

    made = bytes(
        get_swagger_ui_html(
            openapi_url="openapi.json",
            title="mlapp",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"validatorUrl": None},  # it would ask validator.swagger.io
        ).body
    )
    return made.replace(BEGIN, BEGIN + b"requestInterceptor: " + KEY + b",", 1)


def docs_asset(name: str) -> Asset:
    """One of the page's files.

    Raises:
        HttpError: 404, the page has no such file.
    """
    media = MEDIA.get(name)
    if media is None:
        raise HttpError(404, f"There is no docs/{name:.200}.")
    return Asset((files("fastapi_offline") / "static" / name).read_bytes(), media)
