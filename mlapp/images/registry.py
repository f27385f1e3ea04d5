"""Registry operations that the engine lacks: read and write an OCI image index, which lists images by platform."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Any

from mlapp.images.engine import ImageError, connect_image_engine

INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE_MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
MANIFEST_TYPES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json", *IMAGE_MANIFEST_TYPES)
HUB = "registry-1.docker.io"


def parse_registry_host(repository: str) -> str:
    """The registry of a repository, as named in docker's configuration."""
    first, slash, _ = repository.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def push_image_index(repository: str, tag: str, images: Sequence[tuple[str, str]]) -> str:
    """Push an image index with the tag; returns its digest.

    Args:
        images: digest and platform of each image, all in the repository.

    Raises:
        ImageError: the registry refuses or is unreachable.
    """
    session = _Session(repository)
    entries = []
    for digest, platform in images:
        response = session.send_request(
            "GET", f"manifests/{digest}", headers={"Accept": ", ".join(IMAGE_MANIFEST_TYPES)}
        )
        system, _, architecture = platform.partition("/")
        entries.append(
            {
                "mediaType": response.headers["Content-Type"],
                "digest": digest,
                "size": len(response.content),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, sort_keys=True).encode()
    session.send_request("PUT", f"manifests/{tag}", headers={"Content-Type": INDEX}, data=body)
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def find_registry_digest(repository: str, tag: str) -> str | None:
    """The digest of a tag; None if the tag does not exist.

    Raises:
        ImageError: the registry refuses or is unreachable.
    """
    response = _Session(repository).send_request(
        "GET", f"manifests/{tag}", headers={"Accept": ", ".join(MANIFEST_TYPES)}, allow_missing=True
    )
    return None if response is None else f"sha256:{hashlib.sha256(response.content).hexdigest()}"


def find_registry_platform_digest(repository: str, digest: str, platform: str) -> str:
    """The digest of a platform's image in the image index with this digest; the digest itself if it is no index.

    Raises:
        ImageError: the registry refuses or is unreachable.
    """
    response = _Session(repository).send_request(
        "GET", f"manifests/{digest}", headers={"Accept": ", ".join(MANIFEST_TYPES)}
    )
    for entry in response.json().get("manifests", []):
        if f"{entry['platform']['os']}/{entry['platform']['architecture']}" == platform:
            return str(entry["digest"])
    return digest


TLS_ERROR = re.compile(r"HTTP response to HTTPS client|x509|certificate", re.IGNORECASE)
"""The engine's messages about a registry without TLS or with an untrusted certificate."""


def make_untrusted_registry_error(host: str, reason: str) -> ImageError:
    """Advice for a registry without TLS or with an untrusted certificate."""
    return ImageError(
        f"The registry {host} cannot be trusted: {reason}",
        "Give it a certificate that the engine trusts, or allow the engine to skip the check: "
        f'{{"insecure-registries": ["{host}"]}} in its daemon.json, then restart it.',
    )


def _is_insecure_registry(host: str) -> bool:
    """Whether the engine's `insecure-registries` include a registry, by name or by network."""
    with connect_image_engine() as client:
        config = client.info().get("RegistryConfig") or {}
    if host in (config.get("IndexConfigs") or {}):
        return not config["IndexConfigs"][host].get("Secure", True)
    try:
        address = ipaddress.ip_address(host.partition(":")[0])
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in config.get("InsecureRegistryCIDRs") or [])


class _Session:
    """Sends requests to one repository, with the credentials of the docker configuration."""

    def __init__(self, repository: str) -> None:
        import requests
        from docker.auth import load_config

        host = parse_registry_host(repository)
        self._name = repository.removeprefix(f"{host}/")
        if host == "docker.io" and "/" not in self._name:
            self._name = f"library/{self._name}"
        is_local = host.partition(":")[0] == "localhost" or host.startswith("127.")
        self._host = HUB if host == "docker.io" else host
        self._credentials: dict[str, Any] = (
            load_config().resolve_authconfig(None if host == "docker.io" else host) or {}
        )
        self._http = requests.Session()
        self._http.trust_env = not is_local
        scheme = "http" if is_local or (_is_insecure_registry(host) and not self._has_registry_tls()) else "https"
        self._url = f"{scheme}://{self._host}/v2/{self._name}"

    def _has_registry_tls(self) -> bool:
        """Whether an insecure registry has TLS anyway. Its certificate is not verified."""
        import requests

        self._http.verify = False
        try:
            self._http.get(f"https://{self._host}/v2/", timeout=60)
        except requests.RequestException:
            return False
        return True

    def send_request(
        self, method: str, path: str, headers: dict[str, str], data: bytes | None = None, *, allow_missing: bool = False
    ) -> Any:
        """The response; with `allow_missing`, None if the registry does not have the object."""
        import requests

        try:
            response = self._http.request(method, f"{self._url}/{path}", headers=headers, data=data, timeout=60)
            if response.status_code == 401:
                authorization = self._answer_registry_challenge(response.headers.get("WWW-Authenticate", ""))
                self._http.headers["Authorization"] = authorization
                response = self._http.request(method, f"{self._url}/{path}", headers=headers, data=data, timeout=60)
        except requests.exceptions.SSLError as error:
            raise make_untrusted_registry_error(self._host, str(error)) from error
        except requests.RequestException as error:
            raise ImageError(
                f"The registry {self._host} cannot be reached: {error}", "Check its address and the network."
            ) from error
        if response.status_code == 404 and allow_missing:
            return None
        if response.status_code >= 400:
            raise ImageError(
                f"The registry {self._host} answers {response.status_code} to {method} {self._name}/{path}.",
                f"Log in with an account that can push: docker login {self._host}.",
            )
        return response

    def _answer_registry_challenge(self, challenge: str) -> str:
        """The header for a challenge: Basic, or a token from the server that the challenge names."""
        user, password = self._credentials.get("username", ""), self._credentials.get("password", "")
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        if not challenge.lower().startswith("bearer"):
            return f"Basic {basic}"
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": parts.get("service", ""), "scope": f"repository:{self._name}:pull,push"}
        if self._credentials.get("identitytoken"):
            form = {**query, "grant_type": "refresh_token", "refresh_token": self._credentials["identitytoken"]}
            response = self._http.post(parts["realm"], data={**form, "client_id": "mlapp"}, timeout=60)
        else:
            headers = {"Authorization": f"Basic {basic}"} if user else {}
            response = self._http.get(parts["realm"], params=query, headers=headers, timeout=60)
        response.raise_for_status()
        token = response.json()
        return f"Bearer {token.get('token') or token.get('access_token')}"
