"""Server-side apply as the API server does it: who owns which field, conflicts, and fields that go when they are left.

Field sets are kept as paths: keys of mappings, and for lists that merge by key the values of those keys.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/ and structured-merge-diff's `fieldpath`.
"""

from __future__ import annotations

import copy
import json
from typing import Any

LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "conditions": ("type",),
}
PORT_KEYS = (("containerPort", "protocol"), ("port", "protocol"))
ATOMIC = {"matchLabels", "labelSelector", "selector", "from", "egress", "ingress", "rules", "tls", "metrics"}
IDENTITY = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}

Path = tuple[str, ...]


def keys_of(name: str, items: list[Any]) -> tuple[str, ...] | None:
    """The keys by which a list merges, or None for one that is replaced as a whole."""
    if not all(isinstance(item, dict) for item in items):
        return None
    options = PORT_KEYS if name == "ports" else ((LIST_KEYS[name],) if name in LIST_KEYS else ())
    return next((keys for keys in options if all(keys[0] in item for item in items)), None)


def fields(value: Any, path: Path = (), name: str = "") -> dict[Path, Any]:
    """Every leaf of a document with its value."""
    if isinstance(value, dict) and name not in ATOMIC and value:
        return {k: v for key, item in value.items() for k, v in fields(item, (*path, f"f:{key}"), key).items()}
    if isinstance(value, list) and value and (keys := keys_of(name, value)):
        found: dict[Path, Any] = {}
        for item in value:
            step = "k:" + json.dumps({key: item[key] for key in keys if key in item}, separators=(",", ":"))
            found |= fields(item, (*path, step))
        return found
    return {path: value}


def find_owned(document: dict[str, Any]) -> dict[Path, Any]:
    """The fields that an apply of this document owns: all but what identifies it."""
    identity = {tuple(f"f:{key}" for key in path) for path in IDENTITY}
    return {path: value for path, value in fields(document).items() if path not in identity}


def to_fields_v1(paths: set[Path]) -> dict[str, Any]:
    """Paths as `fieldsV1` shows them."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        place = tree
        for step in path:
            place = place.setdefault(step, {})
    return tree


def format_path(path: Path) -> str:
    """A path as a conflict names it: `.spec.replicas`."""
    return "".join(f".{step[2:]}" if step.startswith("f:") else f"[{step[2:]}]" for step in path)


def set_leaf(document: dict[str, Any], path: Path, value: Any) -> None:
    """Set one leaf, making what leads to it."""
    place: Any = document
    for at, step in enumerate(path):
        last = at == len(path) - 1
        if step.startswith("k:"):
            key = json.loads(step[2:])
            item = next((item for item in place if key.items() <= item.items()), None)
            if item is None:
                item = dict(key)
                place.append(item)
            place = item
            continue
        name = step[2:]
        if last:
            place[name] = copy.deepcopy(value)
        else:
            new: Any = [] if path[at + 1].startswith("k:") else {}
            place = place.setdefault(name, new)


def remove(document: Any, path: Path) -> None:
    """Take one leaf out, and what is empty because of it."""
    step, rest = path[0], path[1:]
    if step.startswith("k:"):
        key = json.loads(step[2:])
        item = next((item for item in document if key.items() <= item.items()), None)
        if item is None:
            return
        if rest and rest[0][2:] not in key:  # an item has its keys for as long as it has other fields
            remove(item, rest)
        if not rest or not set(item) - set(key):
            document.remove(item)
        return
    name = step[2:]
    if not isinstance(document, dict) or name not in document:
        return
    if rest and isinstance(document[name], (dict, list)):
        remove(document[name], rest)
        if not document[name]:
            del document[name]
    elif not rest:
        del document[name]


class Conflicted(Exception):
    """Fields with another value that others own: pairs of the path, and the manager and its operation."""

    def __init__(self, found: list[tuple[str, tuple[str, str]]]) -> None:
        super().__init__(str(found))
        self.found = found


Managers = dict[tuple[str, str], set[Path]]
"""Fields by manager and operation."""


def apply(
    live: dict[str, Any] | None, managers: Managers, document: dict[str, Any], manager: str, force: bool
) -> tuple[dict[str, Any], Managers]:
    """What the object and its managers become. `live` and `managers` stay as they are."""
    result, after = copy.deepcopy(live or {}), {key: set(paths) for key, paths in managers.items()}
    wanted, now = find_owned(document), fields(live or {})
    mine = (manager, "Apply")
    clashes = []
    for path, value in wanted.items():
        for key, paths in after.items():
            if key != mine and path in paths and now.get(path, ...) != value:
                clashes.append((path, key))
    if clashes and not force:
        raise Conflicted([(format_path(path), key) for path, key in clashes])
    for path, key in clashes:
        after[key].discard(path)
    for path in after.get(mine, set()) - set(wanted):
        if not any(path in paths for key, paths in after.items() if key != mine):
            remove(result, path)
    for path, value in {**fields({k: v for k, v in document.items() if k in ("apiVersion", "kind")}), **wanted}.items():
        set_leaf(result, path, value)
    result.setdefault("metadata", {}).update(
        {key: document["metadata"][key] for key in ("name", "namespace") if key in document["metadata"]}
    )
    after[mine] = set(wanted)
    return result, {key: paths for key, paths in after.items() if paths}


def update(before: dict[str, Any] | None, managers: Managers, after: dict[str, Any], manager: str) -> Managers:
    """Managers after a plain write: what it changed belongs to the writer alone."""
    old, new = fields(before or {}), find_owned(after)
    changed = {path for path, value in new.items() if old.get(path, ...) != value}
    result = {key: {path for path in paths if path in new and path not in changed} for key, paths in managers.items()}
    mine = (manager, "Update")
    result[mine] = result.get(mine, set()) | changed
    return {key: paths for key, paths in result.items() if paths}
