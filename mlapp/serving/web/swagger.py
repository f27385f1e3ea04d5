"""Swagger UI at `/docs`, from the files in `swagger_ui/`, because clusters often cannot reach a CDN."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from mlapp.serving.web.problems import HttpError

MEDIA = {
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
    "favicon.png": b"image/png",
}
POLICY = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; connect-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
)
"""The header that limits the page to files and answers of this server."""
PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
<title>mlapp</title>
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    showExtensions: true,
    showCommonExtensions: true,
    validatorUrl: null,  // it would ask validator.swagger.io
    requestInterceptor: request => {
        // The key that was given to the page at `/` in this tab: without it, the document itself is refused.
        const key = sessionStorage.getItem("mlapp-key");
        if (key && !request.headers["X-API-Key"]) request.headers["X-API-Key"] = key;
        return request;
    },
});
</script>
</body>
</html>
"""
"""The links are relative: the page works under any prefix, and behind a proxy that adds one."""


@dataclass(frozen=True)
class Asset:
    """A file of Swagger UI."""

    content: bytes
    media: bytes


def find_docs_asset(name: str) -> Asset:
    """One of the page's files.

    Raises:
        HttpError: 404, the page has no such file.
    """
    media = MEDIA.get(name)
    if media is None:
        raise HttpError(404, f"There is no docs/{name:.200}.")
    return Asset((files("mlapp.serving.web") / "swagger_ui" / name).read_bytes(), media)
