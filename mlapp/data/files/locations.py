"""Finds files on disk, in S3, Google Cloud Storage, Azure or on the web, by path or pattern.

Credentials come from each cloud's standard sources: `AWS_ACCESS_KEY_ID`, `~/.aws`, an instance's role;
`GOOGLE_APPLICATION_CREDENTIALS`; `AZURE_STORAGE_ACCOUNT` with `AZURE_STORAGE_KEY`. For S3-compatible services, set
`AWS_ENDPOINT_URL`.
"""

from __future__ import annotations

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlapp.data.secrets import Address
from mlapp.env_vars import read_aws_region, read_azure_account, read_s3_endpoint
from mlapp.errors import DataError, MissingExtraError
from mlapp.path_patterns import compile_path_pattern
from mlapp.temporary_folders import open_temporary_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

_WILD = re.compile(r"[*?\[]")
_REFUSED = (
    "access_denied",
    "accessdenied",
    "forbidden",
    "http status 403",
    "invalidaccesskeyid",
    "signaturedoesnotmatch",
    "authorizationfailure",
    "authenticationfailed",
    "permission_denied",
    "unauthenticated",
)
_TIMEOUT = 10.0
"""Seconds to wait for a connection."""
_GCS_RETRIES = timedelta(seconds=30)


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        path: in `filesystem`.
        display_name: the file's name in messages, without secrets.
        size: in bytes.
        hide: removes secrets from a library's error.
    """

    filesystem: fs.FileSystem
    path: str
    display_name: str
    size: int
    hide: Callable[[object], str] = str

    @property
    def partitions(self) -> dict[str, str]:
        """The keys and values of the folders `key=value` in the path."""
        folders = PurePosixPath(self.path).parts[:-1]
        return dict(folder.split("=", 1) for folder in folders if re.fullmatch(r"\w+=.*", folder))

    @contextmanager
    def open_stream(self) -> Iterator[pa.NativeFile]:
        """The file's bytes, as a seekable stream."""
        with (
            translate_filesystem_error(self.display_name, self.hide),
            self.filesystem.open_input_file(self.path) as stream,
        ):
            yield stream


@contextmanager
def find_files(address: Address) -> Iterator[list[File]]:
    """The files at an address, sorted by path: a file, all files in a folder, or those that match `*` or `**`.

    Raises:
        DataError: there are no files, or reading is not permitted.
    """
    scheme = urlsplit(address.value).scheme if "://" in address.value else ""
    if scheme in ("http", "https"):
        with _download_file(address) as file:
            yield [file]
        return
    with translate_filesystem_error(address.display_name, address.hide_secrets):
        files = _list_folder_files(address, scheme)
    if not files:
        is_pattern = bool(_WILD.search(address.value))
        problem = f"No file matches {address}." if is_pattern else f"There is no file {address}."
        raise DataError(problem, "Check the path." if scheme else f"Check the path; it is looked up from {Path.cwd()}.")
    yield files


def _list_folder_files(address: Address, scheme: str) -> list[File]:
    from pyarrow import fs

    filesystem, path = _open_filesystem(address, scheme)
    prefix = f"{scheme}://" if scheme else ""

    def make_file(info: Any) -> File:
        display_name = address.display_name if address.value != address.display_name else prefix + info.path
        return File(filesystem, info.path, display_name, info.size, address.hide_secrets)

    if not _WILD.search(path):
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return [make_file(info)]
        pattern, base = None, path
    else:
        pattern = compile_path_pattern(path)
        fixed = path[: _WILD.search(path).start()]  # type: ignore[union-attr]
        base = fixed.rpartition("/")[0]
    infos = filesystem.get_file_info(fs.FileSelector(base or ".", recursive=True, allow_not_found=True))
    matching = [
        info
        for info in infos
        if info.type == fs.FileType.File
        and not _is_hidden_path(info.path[len(base) :])
        and (pattern is None or pattern.fullmatch(info.path.removeprefix("./") if not base else info.path))
    ]
    return [make_file(info) for info in sorted(matching, key=lambda info: info.path)]


def _is_hidden_path(path: str) -> bool:
    """Whether a path is hidden, such as the files `_SUCCESS` and `.crc`, which Spark writes next to its results."""
    return any(part.startswith((".", "_")) and "=" not in part for part in PurePosixPath(path.lstrip("/")).parts)


def _open_filesystem(address: Address, scheme: str) -> tuple[fs.FileSystem, str]:
    try:
        from pyarrow import fs
    except ImportError:
        raise MissingExtraError("Reading files", "files") from None
    path = address.value.partition("://")[2]
    match scheme:
        case "" | "file":
            return fs.LocalFileSystem(), str(Path(path or address.value).expanduser()) if scheme == "" else path
        case "s3":
            return _open_s3_filesystem(path.partition("/")[0]), path
        case "gs" | "gcs":
            return fs.GcsFileSystem(**_read_gcs_filesystem_emulator(), retry_time_limit=_GCS_RETRIES), path
        case "abfs" | "abfss":
            filesystem, path = fs.FileSystem.from_uri(address.value)
            return filesystem, path
        case "az":
            account, key = read_azure_account()
            if not account:
                raise DataError(
                    f"{address} names no storage account.",
                    "Set AZURE_STORAGE_ACCOUNT, or use an address with abfs://….",
                )
            return fs.AzureFileSystem(account, account_key=key, **_read_azure_filesystem_emulator()), path
    raise DataError(
        f"{address} begins with {scheme}://, which is not a supported file location.",
        "Known: s3://, gs://, az://, abfs://, https://.",
    )


def _open_s3_filesystem(bucket: str) -> fs.FileSystem:
    from pyarrow import fs

    endpoint, region = read_s3_endpoint(), read_aws_region()
    if region is None and endpoint is None:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint, region=region or "us-east-1", connect_timeout=_TIMEOUT, request_timeout=60
    )


def _read_gcs_filesystem_emulator() -> dict[str, Any]:
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return {}
    scheme, _, address = host.rpartition("://")
    return {"endpoint_override": address, "scheme": scheme or "http", "anonymous": True}


def _read_azure_filesystem_emulator() -> dict[str, Any]:
    host = os.environ.get("AZURITE_BLOB_STORAGE_URL")
    if not host:
        return {}
    scheme, _, address = host.rpartition("://")
    return {
        f"{kind}_storage_{part}": value
        for kind in ("blob", "dfs")
        for part, value in (("scheme", scheme or "http"), ("authority", address))
    }


@contextmanager
def _download_file(address: Address) -> Iterator[File]:
    """A temporary local copy of a file on the web, because formats such as Parquet need random access."""
    from pyarrow import fs

    name = PurePosixPath(urlsplit(address.value).path).name or "download"
    with open_temporary_folder("download") as folder:
        copy = folder / name
        request = urllib.request.Request(address.value, headers={"User-Agent": "mlapp"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, copy.open("wb") as target:  # noqa: S310
                shutil.copyfileobj(response, target, 1 << 20)
                missing = int(response.headers.get("Content-Length") or 0) - target.tell()
        except urllib.error.HTTPError as error:
            todo = (
                "Check the address and the credentials that it requires."
                if error.code in (401, 403)
                else "Check the address."
            )
            raise DataError(f"{address} answers {error.code} {error.reason}.", todo) from None
        except (urllib.error.URLError, OSError) as error:
            reason = address.hide_secrets(getattr(error, "reason", error))
            raise DataError(f"{address} cannot be reached: {reason}.", "Check the address.") from None
        if missing > 0:
            raise DataError(f"The download of {address} ended {missing:,} bytes early.", "Try again.")
        yield File(fs.LocalFileSystem(), str(copy), address.display_name, copy.stat().st_size, address.hide_secrets)


@contextmanager
def translate_filesystem_error(display_name: str, hide: Callable[[object], str]) -> Iterator[None]:
    """Translate the errors of a filesystem to DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"There is no {display_name}.", "Check the path.") from None
    except PermissionError:
        raise DataError(
            f"You have no permission to read {display_name}.", "Ask its owner for permission to read it."
        ) from None
    except IsADirectoryError:
        raise DataError(f"{display_name} is a folder.", "Name the files in it: …/*.parquet.") from None
    except OSError as error:
        text = hide(error)
        lower_text = str(error).lower()
        line = " ".join(text.split())
        if any(marker in lower_text for marker in _REFUSED):
            todo = "Check the credentials, and their permission to list and read files."
            raise DataError(
                f"There is no permission to read {display_name}: {_shorten_filesystem_error(line)}", todo
            ) from None
        if "no_such_bucket" in lower_text or "nosuchbucket" in lower_text:
            raise DataError(f"{display_name}: there is no such bucket.", "Check the bucket's name.") from None
        if "network_connection" in lower_text or "curlcode" in lower_text:
            todo = "Check the network and AWS_ENDPOINT_URL."
            raise DataError(f"{display_name} cannot be reached: {_shorten_filesystem_error(line)}", todo) from None
        raise DataError(
            f"{display_name} cannot be read: {_shorten_filesystem_error(line)}",
            "Check that the file is complete, or copy it again.",
        ) from None


def _shorten_filesystem_error(line: str) -> str:
    """The reason in an error of a cloud SDK, between the operation and the request ID."""
    match = re.search(r"(?:AWS|Azure) Error:? (.*?)(?: RequestId:.*)?$", line)
    return match[1] if match else line
