"""Connects to object stores by URL: Amazon S3 and compatible services, Google Cloud Storage, Azure.

Credentials come from each cloud's standard sources, never from mlapp.yaml: `AWS_ACCESS_KEY_ID`, `~/.aws`, a pod's or an
instance's role; `GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY`. For S3-compatible
services, set `AWS_ENDPOINT_URL`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlapp.env_vars import read_aws_region, read_azure_account, read_s3_endpoint
from mlapp.errors import ConfigError, MissingExtraError
from mlapp.store.storage import RequestError

RETRIES = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
TIMEOUTS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=120)}

_WRONG_KEYS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
    "AuthenticationFailed", "InvalidAuthenticationInfo",
}  # fmt: skip
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
}
_WRONG_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}


def connect_bucket(url: str, setting: str = "store") -> Any:
    """An obstore client for a URL. Makes no request.

    Args:
        setting: the name of the setting in mlapp.yaml, for errors.

    Raises:
        ConfigError: the URL has no bucket, or contains credentials. MissingExtraError: obstore is not installed.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            f"{setting}: the {parts.scheme}:// URL contains more than a bucket and a prefix.",
            "Write s3://bucket/prefix; give credentials in the environment, as AWS_ACCESS_KEY_ID.",
        )
    if not parts.netloc:
        raise ConfigError(f"{setting}: '{url}' names no bucket.", f"Write {parts.scheme}://bucket/prefix.")
    try:
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError:
        raise MissingExtraError(f"A model store at {parts.scheme}://", "s3") from None
    prefix = parts.path.strip("/") or None
    options: dict[str, Any] = {"prefix": prefix, "client_options": TIMEOUTS, "retry_config": RETRIES}
    try:
        if parts.scheme == "gs":
            return GCSStore(parts.netloc, **options)
        if parts.scheme == "az":
            account, key = read_azure_account()
            account_options = {"account_name": account, "account_key": key}
            options |= {name: value for name, value in account_options.items() if value}
            return AzureStore(parts.netloc, **options)
        return S3Store(parts.netloc, **{**options, **_make_s3_client_options(dict(TIMEOUTS))})
    except Exception as error:  # several libraries raise different errors for unreadable credentials
        raise translate_bucket_error(error, url) from None


def _make_s3_client_options(client_options: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"client_options": client_options}
    region = read_aws_region()
    endpoint = read_s3_endpoint()
    if endpoint:
        options["endpoint"] = endpoint
        client_options["allow_http"] = endpoint.startswith("http://")
    if not os.environ.get("AWS_ACCESS_KEY_ID") and _has_object_client_profile():
        options["credential_provider"], profile_region = _find_object_client_credentials()
        region = region or profile_region
    return {**options, "region": region or "us-east-1"}


def _has_object_client_profile() -> bool:
    return bool(os.environ.get("AWS_PROFILE")) or any(
        Path(os.environ.get(name, default)).expanduser().is_file()
        for name, default in (
            ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            ("AWS_CONFIG_FILE", "~/.aws/config"),
        )
    )


def _find_object_client_credentials() -> tuple[Callable[[], Any] | None, str | None]:
    """A credential provider for the profile in `~/.aws` (also SSO and roles), and the profile's region.

    obstore's own provider for this needs Python 3.11.
    """
    import boto3

    session = boto3.Session()
    credentials = session.get_credentials()

    def provide_credentials() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + timedelta(minutes=5),
        }

    return (provide_credentials if credentials is not None else None), session.region_name


def is_transient_bucket_error(error: Exception) -> bool:
    """Whether a retry can succeed: the connection broke, or the server failed."""
    from obstore.exceptions import BaseError

    status = _get_object_client_status(str(error))
    return isinstance(error, BaseError) and (status is None or status in (408, 409, 429) or status >= 500)


def is_missing_bucket_error(error: Exception) -> bool:
    text = str(error)
    return _get_s3_error_code(text) in _NO_BUCKET or "specified bucket does not exist" in text


def translate_bucket_error(error: Exception, display_name: str) -> RequestError:
    """Translate an obstore error. Only the server's error code is included, because a request can contain keys."""
    text, credentials = str(error), _CREDENTIALS[display_name.partition("://")[0]]
    code, status = _get_s3_error_code(text), _get_object_client_status(text)
    reason = code or (f"status {status}" if status else type(error).__name__)
    if is_missing_bucket_error(error):
        return RequestError(
            f"The model store {display_name} does not exist: no such bucket.", "Create the bucket, or fix `store:`."
        )
    if code in _WRONG_KEYS or status == 401:
        return RequestError(
            f"The model store {display_name} does not accept the credentials ({reason}).",
            f"Check {credentials}; log in again if they have expired.",
        )
    if code in _WRONG_REGION or status == 301:
        return RequestError(
            f"The model store {display_name} is in another region ({reason}).", "Set AWS_REGION to the bucket's region."
        )
    if status == 403:
        return RequestError(
            f"The model store {display_name} denies access to these credentials ({reason}).",
            "Ask for permission to list the bucket and to read, write and delete its objects.",
        )
    if "169.254.169.254" in text or "metadata.google" in text or "credential" in text.lower():
        return RequestError(
            f"No credentials are set for the model store {display_name}.",
            f"Set {credentials}.",
        )
    if status is None and ("error sending request" in text or "HTTP error" in text):
        return RequestError(
            f"The model store {display_name} cannot be reached.",
            "Check the network" + (", and AWS_ENDPOINT_URL if it is set." if display_name.startswith("s3") else "."),
        )
    return RequestError(
        f"The model store {display_name} failed ({reason}).",
        "Try again; if it persists, ask the operator of the object store.",
    )


def _get_s3_error_code(text: str) -> str | None:
    match = re.search(r"<Code>(\w+)</Code>", text)
    return match[1] if match else None


def _get_object_client_status(text: str) -> int | None:
    match = re.search(r"status code: (\d{3})", text)
    return int(match[1]) if match else None
