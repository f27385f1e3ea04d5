"""Push images to a registry, and get their digests."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlapp.images import registry
from mlapp.images.build import Image, parse_repository_and_tag
from mlapp.images.engine import (
    EngineError,
    ImageError,
    check_image_engine_messages,
    connect_image_engine,
    translate_image_engine_errors,
)
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker import DockerClient

Bar = Callable[[str, int, int], None]
"""Takes a layer's short name, the transferred bytes, and the total bytes."""

MAX_ATTEMPTS = 4
TEMPORARY_ERROR = re.compile(
    r"EOF|timeout|timed out|refused|reset by peer|broken pipe|closed|i/o|\b50[0234]\b|Service Unavailable|Bad Gateway",
    re.IGNORECASE,
)
"""Texts of temporary errors."""

ACCESS_ERROR = re.compile(
    r"unauthorized|authentication required|denied|no basic auth|forbidden|\b40[13]\b", re.IGNORECASE
)

ADDRESS_ERROR = re.compile(r"no such host|no route to host|network is unreachable", re.IGNORECASE)
"""Texts of errors about an invalid address."""

DIGEST_LINE = re.compile(r": digest: (sha256:[0-9a-f]{64}) size: ")
"""The last line of every engine's output. Some engines also have a field for it."""

ADDRESS = re.compile(r"https?://[^\s\"]+|(?<=:)\d+")
"""Parts of an error to ignore: a URL or a port can contain any of the texts above."""


@dataclasses.dataclass(frozen=True)
class RegistryLogin:
    """User name and password for a registry."""

    user: str
    password: str = dataclasses.field(repr=False)


def push_images(
    images: Sequence[Image],
    *,
    login: RegistryLogin | None = None,
    bar: Bar = lambda *_: None,
    progress: Reporter = lambda _: None,
) -> list[Image]:
    """Push images, and for several platforms the image index that lists them.

    Credentials come from the docker configuration and its helpers, unless `login` is given. An interrupted push is
    resumed without sending uploaded layers again.

    Args:
        images: images of the same bundle for one or more platforms.

    Returns:
        The images with their digests; if there are several, first their index, as an image of platform `multiple`.

    Raises:
        ImageError: the registry is unreachable, refuses, or drops the connection repeatedly.
    """
    with connect_image_engine() as client:
        pushed_images = [_push_image(client, image, login, bar, progress) for image in images]
    if len(pushed_images) == 1:
        return pushed_images
    reference = pushed_images[0].reference.rpartition("-")[0]
    progress(f"push the list of platforms as {reference}")
    repository, tag = parse_repository_and_tag(reference)
    entries = [(image.digest or "", image.platform) for image in pushed_images]
    digest = registry.push_image_index(repository, tag, entries)
    size = sum(image.size for image in pushed_images)
    return [Image(reference, "", "multiple", size, (), digest), *pushed_images]


def _push_image(client: DockerClient, image: Image, login: RegistryLogin | None, bar: Bar, progress: Reporter) -> Image:
    progress(f"push {image.reference}")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return dataclasses.replace(image, digest=_try_push_image(client, image.reference, login, bar))
        except EngineError as error:
            host = registry.parse_registry_host(image.repository)
            reason = error.what.partition(": ")[2]
            plain_reason = ADDRESS.sub("", reason)
            if ACCESS_ERROR.search(plain_reason):
                raise ImageError(
                    f"The registry {host} refused {image.repository}: {reason}",
                    f"Log in with an account that can push (docker login {host}), or change image.name in mlapp.yaml.",
                ) from error
            if ADDRESS_ERROR.search(plain_reason):
                raise ImageError(
                    f"The registry {host} cannot be reached: {reason}",
                    f"Check the address in the image's name, {image.repository}, and the network.",
                ) from error
            if registry.TLS_ERROR.search(plain_reason):
                raise registry.make_untrusted_registry_error(host, reason) from error
            if not TEMPORARY_ERROR.search(plain_reason):
                raise
            if attempt == MAX_ATTEMPTS:
                raise ImageError(
                    f"The registry {host} cannot be reached, tried {MAX_ATTEMPTS} times: {reason}",
                    "Check its address and the network; push again to resume.",
                ) from error
            progress(f"the push was interrupted ({reason}): trying again")
            time.sleep(2 ** (attempt - 1))
    raise AssertionError


def _try_push_image(client: DockerClient, reference: str, login: RegistryLogin | None, bar: Bar) -> str:
    repository, tag = parse_repository_and_tag(reference)
    digest = ""
    with translate_image_engine_errors(f"Pushing {reference}"):
        options = {"auth_config": {"username": login.user, "password": login.password}} if login else {}
        stream = client.api.push(repository, tag, stream=True, decode=True, **options)
        for message in check_image_engine_messages(stream, f"Pushing {reference}"):
            detail = message.get("progressDetail") or {}
            if message.get("status") == "Pushing" and detail.get("total"):
                bar(message["id"], detail.get("current", 0), max(detail["total"], detail.get("current", 0)))
            elif message.get("status") in ("Pushed", "Layer already exists"):
                bar(message["id"], 1, 1)
            if match := DIGEST_LINE.search(message.get("status", "")):
                digest = match[1]
    if not digest:
        raise EngineError(f"Pushing {reference} was interrupted: EOF", "Push again.")
    return digest
