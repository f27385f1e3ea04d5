"""Push images to a registry, and get their digests."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mlapp.images import registry
from mlapp.images.build import Image, split_image_reference
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

ATTEMPTS = 4
PASSING = re.compile(
    r"EOF|timeout|timed out|refused|reset by peer|broken pipe|closed|i/o|\b50[0234]\b|Service Unavailable|Bad Gateway",
    re.IGNORECASE,
)
"""Texts of temporary errors."""

REFUSED = re.compile(r"unauthorized|authentication required|denied|no basic auth|forbidden|\b40[13]\b", re.IGNORECASE)

ABSENT = re.compile(r"no such host|no route to host|network is unreachable", re.IGNORECASE)
"""Texts of errors about an invalid address."""

PUSHED = re.compile(r": digest: (sha256:[0-9a-f]{64}) size: ")
"""The last line of every engine's output; some engines also have a field for it."""

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
        pushed = [_push_image(client, image, login, bar, progress) for image in images]
    if len(pushed) == 1:
        return pushed
    reference = pushed[0].reference.rpartition("-")[0]
    progress(f"push the list of platforms as {reference}")
    repository, tag = split_image_reference(reference)
    entries = [(image.digest or "", image.platform) for image in pushed]
    digest = registry.push_image_index(repository, tag, entries)
    size = sum(image.size for image in pushed)
    return [Image(reference, "", "multiple", size, (), digest), *pushed]


def _push_image(client: DockerClient, image: Image, login: RegistryLogin | None, bar: Bar, progress: Reporter) -> Image:
    progress(f"push {image.reference}")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return dataclasses.replace(image, digest=_try_push_image(client, image.reference, login, bar))
        except EngineError as error:
            host = registry.parse_registry_host(image.repository)
            said = error.what.partition(": ")[2]
            words = ADDRESS.sub("", said)
            if REFUSED.search(words):
                raise ImageError(
                    f"The registry {host} refused {image.repository}: {said}",
                    f"Log in with an account that can push (docker login {host}), or change image.name in mlapp.yaml.",
                ) from error
            if ABSENT.search(words):
                raise ImageError(
                    f"The registry {host} cannot be reached: {said}",
                    f"Check the address in the image's name, {image.repository}, and the network.",
                ) from error
            if registry.PLAIN.search(words):
                raise registry.untrusted_registry_error(host, said) from error
            if not PASSING.search(words):
                raise
            if attempt == ATTEMPTS:
                raise ImageError(
                    f"The registry {host} cannot be reached, tried {ATTEMPTS} times: {said}",
                    "Check its address and the network; push again to resume.",
                ) from error
            progress(f"the push was interrupted ({said}): trying again")
            time.sleep(2 ** (attempt - 1))
    raise AssertionError


def _try_push_image(client: DockerClient, reference: str, login: RegistryLogin | None, bar: Bar) -> str:
    repository, tag = split_image_reference(reference)
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
            if found := PUSHED.search(message.get("status", "")):
                digest = found[1]
    if not digest:
        raise EngineError(f"Pushing {reference} was interrupted: EOF", "Push again.")
    return digest
