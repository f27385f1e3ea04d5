"""The log and the truths as tables of DuckDB."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mlapp import distribution
from mlapp.errors import DataError, MissingExtraError, StoreError
from mlapp.monitoring.file_limits import read_bounded_metadata
from mlapp.monitoring.place import DAY, HOUR, Place, Window
from mlapp.monitoring.segments import FORMAT, META, select_current_segments
from mlapp.monitoring.truth import Truth, encode_truths
from mlapp.plain_numbers import parse_plain_integer
from mlapp.temporary_folders import open_temporary_folder

LATER = 10**9
"""A format that this mlapp does not know."""
QUOTED = re.compile(r"^\w+ Error: |\n\nLINE .*", re.DOTALL)
"""The parts of an error of DuckDB that are removed: its kind, and its copy of the query."""
MEMORY = "512MB"
"""Memory limit of DuckDB; the rest goes to temporary files."""
LOG = """CREATE VIEW log AS SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS request, NULL::INTEGER AS "row",
NULL::TIMESTAMPTZ AS time, NULL::VARCHAR AS version, NULL::FLOAT AS latency, NULL::FLOAT AS weight,
NULL::VARCHAR AS prediction WHERE false"""
TRUTH = """CREATE VIEW truth AS SELECT NULL::VARCHAR AS request, NULL::INTEGER AS "row", NULL::VARCHAR AS keys,
NULL::VARCHAR AS truth, NULL::BIGINT AS received WHERE false"""


LOG_TYPES = {"request": "string", "row": "int32", "time": "timestamp", "version": "string", "weight": "float"}
TRUTH_TYPES = {"request": "string", "row": "int32", "keys": "string", "truth": "string", "received": "int64"}
"""The required columns of a file, with the start of the name of their Arrow type."""


class Database:
    """A connection of DuckDB.

    Args:
        segments: key of a segment of the log → its local file.
    """

    def __init__(self, connection: Any, segments: Mapping[str, Path], truths: Sequence[Path]) -> None:
        self.execute = connection.execute
        self._files = [*segments.values(), *truths]
        self._hours: dict[tuple[str, str], list[Path]] = {}
        for key, file in segments.items():
            *_, version, hour, _ = key.split("/")
            self._hours.setdefault((version, hour), []).append(file)

    def deny_other_files(self) -> None:
        """Restrict further statements to these tables: no other file, address, extension, or attached database.

        A statement cannot undo it (https://duckdb.org/docs/stable/operations_manual/securing_duckdb).
        """
        self.execute(f"SET allowed_paths={_format_database_list(self._files)}")
        self.execute("SET enable_external_access=false")

    def log_of(self, version: str, window: Window) -> str:
        """A table in SQL of only the segments that can hold rows of a version in a window."""
        files = [
            file
            for (number, hour), files in self._hours.items()
            if number == version and _is_hour_within(hour, window.since, window.until)
            for file in files
        ]
        return _format_duckdb_reader(files) if files else "(SELECT * FROM log WHERE false)"


@contextmanager
def open_database(
    place: Place,
    *,
    since: float | None = None,
    until: float | None = None,
    version: str | None = None,
    truths: Sequence[Truth] = (),
) -> Iterator[Database]:
    """A database with the views `log` and `truth`.

    Args:
        since, until: seconds since 1970. Segments of other hours are excluded.
        truths: added to the stored ones in the view `truth`.

    Raises:
        MissingExtraError: DuckDB or pyarrow is not installed. StoreError: the place cannot be read.
    """
    try:
        import duckdb
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("The prediction log", "monitor") from None
    with open_temporary_folder("monitor") as folder:
        connection = duckdb.connect()
        try:
            connection.execute(f"SET memory_limit='{MEMORY}'; SET threads=2; SET preserve_insertion_order=false")
            connection.execute(f"SET temp_directory='{folder}/spill'; SET TimeZone='UTC'")
            connection.execute("SET allow_community_extensions=false; SET autoinstall_known_extensions=false")
            keys = list_database_log_keys(place, since, until, version)
            segments = dict(zip(keys, _fetch_database_files(place, folder, keys), strict=True))
            readable = _create_database_view(connection, "log", list(segments.values()), LOG)
            files = _fetch_database_files(place, folder, list_truth_keys(place, since))
            if truths:
                files.append(folder / "given.parquet")
                files[-1].write_bytes(encode_truths(truths, 0))
            readable_truths = _create_database_view(connection, "truth", files, TRUTH)
            yield Database(
                connection, {key: file for key, file in segments.items() if file in readable}, sorted(readable_truths)
            )
        except duckdb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise StoreError(
                f"The prediction log in {place!r} cannot be read: {reason}.",
                "If the message names a file, delete that file; the rest of the log is not affected.",
            ) from None
        finally:
            connection.close()
            shutil.rmtree(folder / "spill", ignore_errors=True)


def query_monitoring_database(place: Place, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The names and rows of a query's result. It can read only the log and the truths.

    Raises:
        DataError: the query is wrong.
    """
    with open_database(place) as connection:
        import duckdb

        connection.deny_other_files()
        try:
            # DuckDB could also write to the allowed paths.
            if any(statement.type == duckdb.StatementType.COPY for statement in duckdb.extract_statements(sql)):
                raise DataError(
                    "The query writes to a file, which this command does not permit.",
                    "Write a SELECT, and redirect its output: mlapp monitor sql --json QUERY > FILE.",
                )
            result = connection.execute(sql)
            if result is None:
                raise DataError("The query is empty.", "The tables are log and truth: DESCRIBE log.")
            return [column[0] for column in result.description or ()], result.fetchall()
        except duckdb.Error as error:
            reason = QUOTED.sub("", str(error)).strip().rstrip(".")
            raise DataError(f"The query failed: {reason}.", "The tables are log and truth: DESCRIBE log.") from None


def list_database_log_keys(
    place: Place, since: float | None = None, until: float | None = None, version: str | None = None
) -> list[str]:
    """The keys of the current segments."""
    keys = []
    for number in place.names("log"):
        if version is not None and number != version:
            continue
        for hour in place.names("log", number):
            if _is_hour_within(hour, since, until):
                keys += [
                    place.key("log", number, hour, name)
                    for name in select_current_segments(place.names("log", number, hour))
                ]
    return keys


def list_truth_keys(place: Place, since: float | None = None) -> list[str]:
    """The keys of the truths' files. A truth is never older than its prediction."""
    day = "" if since is None else datetime.fromtimestamp(since - DAY, timezone.utc).strftime("%Y-%m-%d")
    return [
        place.key("truth", name, file)
        for name in place.names("truth")
        if name >= day
        for file in place.names("truth", name)
    ]


def _is_hour_within(hour: str, since: float | None, until: float | None) -> bool:
    try:
        begin = datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return False
    return (since is None or begin + HOUR > since) and (until is None or begin < until)


def _fetch_database_files(place: Place, folder: Path, keys: Sequence[str]) -> list[Path]:
    """Local files with the contents of the keys that still exist."""
    local = place.folder()
    if local is not None:
        root = Path(str(local)[: -len(place.root)])
        return [_link_plain_name(root / key, folder) for key in keys]
    files = []
    for start in range(0, len(keys), 64):
        some = keys[start : start + 64]
        for key, content in zip(some, place.storage.read_keys(some), strict=True):
            path = folder / key.replace("/", "_")
            if content is not None:
                path.write_bytes(content)
            files.append(path)
    return files


def _link_plain_name(file: Path, folder: Path) -> Path:
    """The file, or a link to it if DuckDB would treat its path as a pattern."""
    if not set("*?[") & set(str(file)):
        return file
    link = folder / f"{hashlib.sha256(str(file).encode()).hexdigest()}.parquet"
    link.symlink_to(file.absolute())
    return link


def _create_database_view(connection: Any, name: str, files: Sequence[Path], empty: str) -> set[Path]:
    """Create a view of the files that exist, and return them."""
    import pyarrow as pa

    readable = []
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a named pipe would block for ever
                raise OSError("it is not a file")
            with file.open("rb") as stream:
                schema = read_bounded_metadata(stream).schema.to_arrow_schema()
        except FileNotFoundError:  # merged or deleted in the meantime
            continue
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{file} cannot be read: {str(error).rstrip('.')}.",
                "Delete this file; the rest of the log is not affected.",
            ) from None
        form = (schema.metadata or {}).get(META, FORMAT)
        if (parse_plain_integer(form.decode("latin-1")) or LATER) > int(FORMAT):
            raise StoreError(
                f"{file} has format {form.decode('latin-1')}; this mlapp reads formats up to {FORMAT.decode()}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )
        require_column_types(schema, str(file), LOG_TYPES if name == "log" else TRUTH_TYPES)
        readable.append(file)
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {_format_duckdb_reader(readable)}" if readable else empty)
    return set(readable)


def require_column_types(schema: Any, file: str, types: Mapping[str, str]) -> None:
    """Check the columns that queries need.

    Raises:
        StoreError: one is missing, or of another type.
    """
    for name, kind in types.items():
        column_type = str(schema.field(name).type) if name in schema.names else "missing"
        if not column_type.startswith(kind):
            raise StoreError(
                f"{file} was not written by mlapp: its column '{name}' is {column_type}.",
                "Delete this file; the rest of the log is not affected.",
            )


def _format_duckdb_reader(files: Iterable[Path]) -> str:
    """The table function that reads the files."""
    return f"read_parquet({_format_database_list(files)}, union_by_name=true)"


def _format_database_list(files: Iterable[Path]) -> str:
    """A list of texts in SQL."""
    return "[" + ", ".join("'" + str(file).replace("'", "''") + "'" for file in files) + "]"
