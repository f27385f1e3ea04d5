"""Transfer files to and from Flyte's object store by signed URLs, without the store's credentials."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError

MAX_TRANSFERS = 4
"""Maximum number of concurrent transfers. Each makes a call to flyteadmin and a request to the store."""
TIMEOUT = 60
"""Seconds without data after which a transfer fails."""


class ExpiredError(FlyteError):
    """An output of a run has expired."""


def upload_file(connection: Connection, file: Path, name: str, root: str) -> str:
    """Upload a file to `root`/`name`; returns its location.

    Raises:
        FlyteError: the object store refused it.
    """
    import requests

    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    settings = connection.settings
    upload = connection.call_client(
        connection.client.get_upload_signed_url,
        settings.project,
        settings.domain,
        content_md5=digest.digest(),
        filename=name,
        filename_root=root,
    )
    headers = {
        "Content-Length": str(file.stat().st_size),
        "Content-MD5": base64.b64encode(digest.digest()).decode(),
        **_make_file_transfer_headers(upload.native_url),
        **dict(upload.headers),
    }
    with connection.translate_errors(), file.open("rb") as content:
        response = requests.put(
            upload.signed_url, data=content, headers=headers, timeout=TIMEOUT, verify=_choose_transfer_tls(connection)
        )
    if not response.ok:
        raise FlyteError(
            f"Flyte's object store refused {name}: {response.status_code} {response.reason}.",
            "Check the store's permissions for signed URLs, and this machine's clock.",
        )
    return str(upload.native_url)


def upload_files(connection: Connection, files: Mapping[str, Path], root: str) -> dict[str, str]:
    """Upload files to `root`, several at a time; returns name → URL.

    Raises:
        FlyteError: the object store refused a file.
    """
    with ThreadPoolExecutor(MAX_TRANSFERS) as pool:
        urls = pool.map(lambda name: upload_file(connection, files[name], name, root), files)
        return dict(zip(files, urls, strict=True))


def download_files(connection: Connection, url: str, names: Iterable[str], folder: Path) -> None:
    """Download files below `url` to a folder, several at a time.

    Raises:
        ExpiredError: a signed URL has expired.
    """
    with ThreadPoolExecutor(MAX_TRANSFERS) as pool:
        for _ in pool.map(lambda name: download_file(connection, f"{url}/{name}", folder / name), names):
            pass


def download_file(connection: Connection, url: str, file: Path, retry_command: str = "mlapp train --remote") -> None:
    """Download a file by a signed URL or, if Flyte provides none, with this machine's credentials.

    Args:
        retry_command: the command that creates such a file again.

    Raises:
        ExpiredError: the file has expired.
    """
    import requests

    file.parent.mkdir(parents=True, exist_ok=True)
    signed_url = url
    if not url.startswith(("http://", "https://")):  # otherwise flyteadmin has signed it already
        try:
            signed_url = connection.call_client(connection.client.get_download_signed_url, url).signed_url
        except FlyteError as error:
            if "NOT_FOUND" in error.what:
                raise _make_expired_file_error(url, retry_command) from error
            _download_without_url(connection, url, file)
            return
    with (
        connection.translate_errors(),
        requests.get(signed_url, stream=True, timeout=TIMEOUT, verify=_choose_transfer_tls(connection)) as response,
        file.open("wb") as target,
    ):
        if response.status_code in (403, 404, 410):
            raise _make_expired_file_error(url, retry_command)
        response.raise_for_status()
        shutil.copyfileobj(response.raw, target)


def _download_without_url(connection: Connection, url: str, file: Path) -> None:
    from flytekit.core.data_persistence import FileAccessProvider

    access = FileAccessProvider(str(file.parent), str(file.parent), data_config=connection.config.data_config)
    try:
        access.get_data(url, str(file))
    except Exception as error:  # exceptions differ between object stores
        raise ExpiredError(
            f"{url} cannot be read: {' '.join(str(error).split())[:200]}",
            "Run again if its files have expired; otherwise check this machine's credentials for that object store.",
        ) from error


def _make_expired_file_error(url: str, retry_command: str) -> ExpiredError:
    return ExpiredError(
        f"{url} no longer exists: Flyte keeps a run's files for a limited time.",
        f"Run again: {retry_command}.",
    )


def _make_file_transfer_headers(url: str) -> dict[str, str]:
    return {"x-ms-blob-type": "BlockBlob"} if url.startswith(("abfs", "wasb")) else {}


def _choose_transfer_tls(connection: Connection) -> Any:
    platform = connection.config.platform
    return False if platform.insecure_skip_verify else platform.ca_cert_file_path or True
