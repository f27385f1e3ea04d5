"""The view of every path of the model. Works under WSGI and ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from mlapp.django.model_site import open_model_site
from mlapp.embed.answers import StreamBody
from mlapp.embed.environ import read_environ
from mlapp.serving.web.problems import HttpError


@csrf_exempt  # API clients send no token, and the model's site reads no cookie
def answer_django_request(request: HttpRequest, path: str) -> HttpResponseBase:
    """The response of the model's `path`, such as `/predict`."""
    answer = open_model_site().answer_request(read_environ(request.META, path, _find_django_view_reader(request)))
    headers = dict(answer.list_headers())
    if answer.stream is None:
        return HttpResponse(b"" if request.method == "HEAD" else answer.body, status=answer.status, headers=headers)
    body = answer.iterate_body()
    is_sync = isinstance(request, WSGIRequest)
    return StreamingHttpResponse(
        body if is_sync else _iterate_django_view_body(body), status=answer.status, headers=headers
    )


def _find_django_view_reader(request: HttpRequest) -> Callable[[int], bytes] | None:
    """The function that reads the body; None for a chunked body under WSGI, which Django treats as empty."""
    has_length = bool(request.META.get("CONTENT_LENGTH"))
    if isinstance(request, WSGIRequest) and not has_length:
        return None

    def read(size: int) -> bytes:
        try:
            return bytes(request.read(size))
        except UnreadablePostError as error:
            raise HttpError(400, "The body ended early.") from error

    return read


async def _iterate_django_view_body(body: StreamBody) -> AsyncGenerator[bytes, None]:
    """The parts of a body for ASGI. A thread waits for each part."""
    try:
        while (part := await asyncio.to_thread(next, body, None)) is not None:
            yield part
    finally:
        body.close()
