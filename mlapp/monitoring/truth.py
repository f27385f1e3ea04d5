"""Truths about predictions, by a request's id or by business keys.

A truth can arrive at any time after its prediction, and can be repeated or corrected: the last one counts. A truth with
an id or keys that are not in the log is kept, because the log can be written later. A class that training never saw is
kept and reported.
"""

from __future__ import annotations

import io
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from mlapp.baseline import Baseline
from mlapp.baseline.build import to_category_text
from mlapp.errors import Problem, StoreError, TruthError
from mlapp.monitoring.business_keys import MOST_KEYS, are_business_keys
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.place import Place
from mlapp.plain_numbers import is_plain_integer
from mlapp.schema.infer import refuse_equal_columns
from mlapp.schema.json_values import to_json_value
from mlapp.schema.part import REQUEST_ID

MOST = 1_000_000
"""Maximum truths of one file."""


class Truth(msgspec.Struct, frozen=True):
    """One truth. `request` and `row`, or `keys` as JSON, identify the prediction."""

    request: str | None
    row: int
    keys: str | None
    truth: str


SHOWN_CLASSES = 10
"""Maximum unknown classes that are named: the most frequent ones."""
FAULTS = 10
"""Maximum number of wrong entries that an error names."""
LONGEST_ROW = 9
"""Maximum digits of a row's number."""


class Truths:
    """Checks truths and writes them.

    Args:
        baseline: of the version that the truths are about, if known; its target's type is checked.
    """

    def __init__(self, place: Place, rules: ColumnPrivacy, baseline: Baseline | None = None) -> None:
        self._place, self._rules, self._baseline = place, rules, baseline
        self._kind = None if baseline is None else baseline.target

    @property
    def target_type(self) -> str | None:
        """JSON type of the target, if known."""
        return self._kind

    def describe_accepted(self, accepted: int, truths: Sequence[Truth]) -> dict[str, Any]:
        """The answer to stored truths: their number, and the classes among them that training never saw."""
        unknown = count_unknown_truth_classes(self._baseline, (truth.truth for truth in truths))
        return {"accepted": accepted, "unknown_classes": unknown} if unknown else {"accepted": accepted}

    def check_truths(self, body: Any) -> list[Truth]:
        """Check a request's body: one object or a list of `{"id" | "keys", "truth"}`.

        Raises:
            TruthError: names the entry and the field.
        """
        entries = body if isinstance(body, list) else [body]
        problems: list[Problem] = []
        truths: list[Truth] = []
        for at, entry in enumerate(entries):
            try:
                truths += self._parse_truth(entry)
            except ValueError as error:
                field, _, detail = str(error).partition("|")
                if isinstance(body, list):
                    detail = f"row {at}: {detail}"
                problems.append(Problem(detail, field=field, row=at))
                if len(problems) == FAULTS:
                    break
        if problems or not entries:
            raise TruthError(
                problems or [Problem("the list is empty", field="truth")],
                'Send {"id": …, "truth": …} or {"keys": {…}, "truth": …}.',
            )
        return truths

    def write_truths(self, truths: Sequence[Truth]) -> int:
        """Store truths; returns their number.

        Raises:
            StoreError: the place cannot be written. MissingExtraError: pyarrow is not installed.
        """
        from mlapp.monitoring.segments import require_pyarrow

        require_pyarrow("Feedback")
        for start in range(0, len(truths), MOST):
            now = time.time_ns()
            day = datetime.fromtimestamp(now / 1e9, timezone.utc).strftime("%Y-%m-%d")
            key = self._place.key("truth", day, f"{now}-{uuid.uuid4().hex}.parquet")
            self._place.storage.create_key(key, encode_truths(truths[start : start + MOST], now))
        return len(truths)

    def _parse_truth(self, entry: Any) -> list[Truth]:
        if not isinstance(entry, dict):
            raise ValueError("truth|it is not an object with id or keys, and truth")
        unknown = [name for name in entry if name not in ("id", "keys", "truth")]
        if unknown:
            raise ValueError(f"{unknown[0]:.60}|unknown key '{unknown[0]:.60}'")
        if "truth" not in entry:
            raise ValueError("truth|truth is missing")
        identifiers = [name for name in ("id", "keys") if entry.get(name) is not None]
        if len(identifiers) != 1:
            raise ValueError("id|give one of id and keys")
        value = to_json_value(entry["truth"])
        if identifiers[0] == "keys":
            keys = entry["keys"]
            if not keys or not are_business_keys(keys):
                raise ValueError(f"keys|keys is not an object of at most {MOST_KEYS} strings and numbers")
            stored_keys = self._rules.redact_keys(keys)
            if not stored_keys:
                raise ValueError("keys|monitor.columns drops all of them")
            return [Truth(None, 0, format_truth_keys(stored_keys), self._format_business_key(value))]
        request, _, row = str(entry["id"]).partition("#")
        if not isinstance(entry["id"], (str, int)) or not _is_request_id(request) or not _is_truth_row_number(row):
            raise ValueError("id|id has neither the form REQUEST nor REQUEST#ROW: an X-Request-ID, and a row number")
        if isinstance(value, list) and not row:
            return [Truth(request, at, None, self._format_business_key(item)) for at, item in enumerate(value)]
        return [Truth(request, int(row or 0), None, self._format_business_key(value))]

    def _format_business_key(self, value: Any) -> str:
        kind = self._kind
        if value is None:
            raise ValueError("truth|truth is null")
        if kind == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise ValueError("truth|truth is out of range for a number") from None
        if kind == "boolean" and value in (0, 1):
            value = bool(value)
        types: dict[str, type] = {"integer": int, "number": float, "boolean": bool, "string": str}
        if kind in types and type(value) is not types[kind]:
            raise ValueError(f"truth|truth is not of type {kind}, as the target is")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("truth|truth is an integer of more than 64 bits")
        return msgspec.json.encode(value).decode()


def count_unknown_truth_classes(baseline: Baseline | None, truths: Iterable[str]) -> dict[str, int]:
    """The classes that training never saw, with the number of their truths, most frequent first.

    Empty for a model that is no classifier, and for a version that does not list its classes.

    Args:
        truths: as JSON.
    """
    if baseline is None or not baseline.classes or [column.kind for column in baseline.predictions] != ["category"]:
        return {}
    classes = set(baseline.classes)
    unknown: Counter[str] = Counter()
    for text, count in Counter(truths).items():
        name = to_category_text(decode_truth(text)) or ""
        if name not in classes:
            unknown[name] += count
    return dict(unknown.most_common(SHOWN_CLASSES))


def decode_truth(text: str) -> Any:
    """A stored truth.

    Raises:
        StoreError: it is no JSON, so mlapp has not written it.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        raise StoreError(
            f"A stored truth cannot be read: {text:.40}", "Delete its file: mlapp did not write it."
        ) from None


def describe_unknown_truth_classes(classes: Mapping[str, int]) -> str:
    """A sentence about truths with classes that training never saw."""
    total, names = sum(classes.values()), ", ".join(f"{name:.40} ({count})" for name, count in classes.items())
    return (
        f"{total} truth{' has a class' if total == 1 else 's have classes'} that training never saw: {names}. "
        "Every prediction for such a truth counts as wrong."
    )


def make_truths_from_table(table: Any) -> list[dict[str, Any]]:
    """The entries of a table with the columns `id` and `truth`, or key columns and `truth`.

    Raises:
        TruthError: it has no such columns.
    """
    from mlapp.training import defaults

    frame = defaults.load_default_table(table)
    refuse_equal_columns(frame)
    names = [str(name) for name in frame.columns]
    keys = [name for name in names if name not in ("id", "truth")]
    has_rows_named = "id" in names or bool(keys)
    if "truth" not in names or not has_rows_named:
        missing = "id is" if "truth" in names else "truth is" if has_rows_named else "truth and id are"
        raise TruthError(
            [Problem(f"{missing} missing; the columns are {', '.join(names) or 'none'}", field="truth")],
            "Give the columns id and truth, or key columns and truth.",
        )
    labeled_rows = frame[frame["truth"].notna()]
    truths = [to_json_value(value) for value in labeled_rows["truth"].tolist()]
    if "id" in names:
        ids = [_make_truth_table_key(value) for value in labeled_rows["id"].tolist()]
        return [{"id": None if id is None else str(id), "truth": truth} for id, truth in zip(ids, truths, strict=True)]
    columns = [[_make_truth_table_key(value) for value in labeled_rows[name].tolist()] for name in keys]
    return [
        {"keys": dict(zip(keys, row, strict=True)), "truth": truth}
        for *row, truth in zip(*columns, truths, strict=True)
    ]


def _make_truth_table_key(value: Any) -> Any:
    """An id or key of a table, with integers restored: pandas makes floats of them beside a missing value."""
    plain = to_json_value(value)
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def format_truth_keys(keys: Mapping[str, Any]) -> str:
    """Business keys as one text: sorted, every value a text."""
    texts = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in keys.items()
    }
    return msgspec.json.encode(texts, order="sorted").decode()


def encode_truths(truths: Iterable[Truth], received: int) -> bytes:
    """Truths as Parquet.

    Args:
        received: time in nanoseconds since 1970. Of two truths about one row, the later one in the list counts.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    truth_list = list(truths)
    table = pa.table(
        {
            "request": pa.array([truth.request for truth in truth_list], pa.string()),
            "row": pa.array([truth.row for truth in truth_list], pa.int32()),
            "keys": pa.array([truth.keys for truth in truth_list], pa.string()),
            "truth": pa.array([truth.truth for truth in truth_list], pa.string()),
            "received": pa.array(range(received, received + len(truth_list)), pa.int64()),
        }
    )
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _is_request_id(text: str) -> bool:
    """Whether an answer can have had this id."""
    return text.isascii() and REQUEST_ID.fullmatch(text.encode()) is not None


def _is_truth_row_number(text: str) -> bool:
    """Whether a text is a row number, or empty."""
    return not text or (is_plain_integer(text) and len(text) <= LONGEST_ROW)
