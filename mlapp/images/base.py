"""The base image: find or pull it for a platform, and locate its Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlapp.images import registry
from mlapp.images.dockerfile import format_dockerfile_install
from mlapp.images.engine import ImageError, check_image_engine_messages, translate_image_engine_errors
from mlapp.images.image_spec import ImageSpec
from mlapp.reporting import Reporter

if TYPE_CHECKING:
    from docker import DockerClient

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Base:
    """A base image in the engine. `inspected` is the output of `docker image inspect`, as plain data."""

    id: str
    platform: str
    inspected: dict[str, Any]

    @property
    def layers(self) -> list[str]:
        """The digests of the base's layers."""
        return list(self.inspected["RootFS"]["Layers"])

    @property
    def environment(self) -> dict[str, str]:
        """The base's environment variables, including PATH."""
        pairs = (entry.partition("=") for entry in self.inspected["Config"].get("Env") or [])
        return {"PATH": PATH, **{name: value for name, _, value in pairs}}


def find_base(client: DockerClient, spec: ImageSpec, platform: str, progress: Reporter) -> Base:
    """The base image of a specification with its system packages, pulled or built if the engine lacks it.

    Raises:
        ImageError: the image does not exist for the platform, or its packages cannot be installed.
    """
    with translate_image_engine_errors():
        local = _find_local_base_image(client, spec.base, platform)
    base = local or _pull_base_image(client, spec.base, platform, progress)
    if not spec.system_packages:
        return base
    progress(f"install {', '.join(spec.system_packages)}")
    import io

    text = f"FROM {base.id}\n{format_dockerfile_install(spec.system_packages)}\n"
    with translate_image_engine_errors("Installing image.system_packages"):
        stream = client.api.build(
            fileobj=io.BytesIO(text.encode()), rm=True, forcerm=True, decode=True, platform=platform
        )
        image_id = None
        for message in check_image_engine_messages(stream, f"Installing {', '.join(spec.system_packages)}"):
            image_id = (message.get("aux") or {}).get("ID") or image_id
    built_base = _find_local_base_image(client, str(image_id), platform)
    assert built_base is not None
    return built_base


def find_base_python(client: DockerClient, base: Base, python: str) -> str:
    """The folder of the base's Python of this minor version. Runs nothing in the image, whose platform can differ.

    Raises:
        ImageError: the image lacks this version; the message lists those that it has.
    """
    with translate_image_engine_errors(f"Looking into {base.id}"):
        container = client.api.create_container(base.id, ["true"])["Id"]
        try:
            if _has_base_image_path(client, container, "/etc/alpine-release"):
                raise ImageError(
                    "The base image is Alpine Linux, for which most packages have no wheels.",
                    "Choose one with glibc, such as python:3-slim: image.base in mlapp.yaml.",
                )
            folders = base.environment["PATH"].split(":")
            for folder in folders:
                if _has_base_image_path(client, container, f"{folder}/python{python}"):
                    return folder
            names = {_read_base_link(client, container, f"{folder}/python3") for folder in folders}
            versions = sorted(match.group(1) for name in names if (match := re.search(r"python(3\.\d+)$", name)))
        finally:
            client.api.remove_container(container, force=True)
    has = f"it has {', '.join(versions)}" if versions else "it has no other"
    todo = f"Set image.python to '{versions[-1]}'" if versions else "Set image.base to an image with Python"
    raise ImageError(
        f"The base image has no Python {python}; {has}.", f"{todo} in mlapp.yaml, or choose another image.base."
    )


def _has_base_image_path(client: DockerClient, container: str, path: str) -> bool:
    return _stat_base_path(client, container, path) is not None


def _read_base_link(client: DockerClient, container: str, path: str) -> str:
    """The target of a symbolic link, such as `python3` to its minor version; empty if it is not a link."""
    return str((_stat_base_path(client, container, path) or {}).get("linkTarget") or "")


def _stat_base_path(client: DockerClient, container: str, path: str) -> dict[str, Any] | None:
    import docker.errors

    try:
        stream, status = client.api.get_archive(container, path)
    except docker.errors.NotFound:
        return None
    stream.close()
    return dict(status)


def _find_local_base_image(client: DockerClient, reference: str, platform: str) -> Base | None:
    """An image in the engine, if it is for the platform."""
    details = _inspect_base_image(client, reference)
    if details is None or f"{details['Os']}/{details['Architecture']}" != platform:
        return None
    return Base(details["Id"], platform, details)


def _has_base_image(client: DockerClient, reference: str) -> bool:
    return _inspect_base_image(client, reference) is not None


def _inspect_base_image(client: DockerClient, reference: str) -> dict[str, Any] | None:
    import docker.errors

    try:
        return dict(client.api.inspect_image(reference))
    except docker.errors.ImageNotFound:
        return None


def _pull_base_image(client: DockerClient, reference: str, platform: str, progress: Reporter) -> Base:
    """Pull by digest, so that the user's tag does not move to another platform. Tag the image only if the tag is free.

    For the digest of an image index, an engine keeps the image of only one platform, so images of other platforms are
    pulled by their own digests.
    """
    import docker.errors

    progress(f"pull {reference} for {platform}")
    name = reference.partition("@")[0]
    last_part = name.rpartition("/")[2]
    repository = name[: -len(last_part)] + last_part.partition(":")[0]
    try:
        digest = client.api.inspect_distribution(reference)["Descriptor"]["digest"]
        base = _find_local_base_image(client, f"{repository}@{digest}", platform)
        if base is None and _has_base_image(client, f"{repository}@{digest}"):
            digest = registry.find_registry_platform_digest(repository, digest, platform)
            base = _find_local_base_image(client, f"{repository}@{digest}", platform)
        if base is None:
            stream = client.api.pull(repository, tag=digest, platform=platform, stream=True, decode=True)
            for message in check_image_engine_messages(stream, f"Pulling {reference}"):
                if message.get("status", "").startswith("Status:"):
                    progress(message["status"].removeprefix("Status: "))
            base = _find_local_base_image(client, f"{repository}@{digest}", platform)
        if base is not None and "@" not in reference and not _has_base_image(client, reference):
            client.api.tag(base.id, repository, last_part.partition(":")[2] or "latest")
    except docker.errors.APIError as error:
        if registry.TLS_ERROR.search(str(error.explanation)):
            raise registry.make_untrusted_registry_error(
                registry.parse_registry_host(repository), str(error.explanation)
            ) from error
        raise ImageError(
            f"The base image {reference} cannot be pulled: {error.explanation or error}.",
            "Check image.base in mlapp.yaml, the network, and `docker login`.",
        ) from error
    if base is None:
        raise ImageError(
            f"The base image {reference} does not support {platform}.", "Choose another image.base or platform."
        )
    return base
