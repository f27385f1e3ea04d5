"""`patches`: user changes to the rendered objects that no setting covers.

`merge` is a strategic merge patch as in kubectl and kustomize: lists with a merge key merge by it, `null` removes a
field, and `$patch: delete` and `$patch: replace` are supported. `json` is a JSON patch, RFC 6902.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from mlapp.deploy.cluster.naming import Names
from mlapp.deploy.cluster.object_kinds import object_title
from mlapp.deploy.cluster.settings import Patch
from mlapp.errors import ConfigError, suggest_nearest

MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
    "secrets": ("name",),
}
"""Lists of the core API that merge by a key, from its `patchMergeKey` tags; all other lists are replaced."""


def select_canary_patches(patches: list[Patch], names: Names, documents: list[dict[str, Any]]) -> list[Patch]:
    """The patches that match a canary's documents. A patch of the live object by name also changes the canary's."""
    keys = {(document["kind"], document["metadata"]["name"]) for document in documents}
    kinds = {kind for kind, _ in keys}
    matching = []
    for patch in patches:
        if patch.name == names.base and (patch.kind, names.canary) in keys:
            matching.append(msgspec.structs.replace(patch, name=names.canary))
        if (patch.kind, patch.name) in keys or (patch.name is None and patch.kind in kinds):
            matching.append(patch)
    return matching


def apply_patches(
    documents: list[dict[str, Any]], patches: list[Patch], section: str = "targets.k8s"
) -> list[dict[str, Any]]:
    """Copies of the documents with the patches applied in order.

    Raises:
        ConfigError: a patch has neither or both forms, matches no object, or cannot be applied.
    """
    documents, target = copy.deepcopy(documents), section.rpartition(".")[2]
    for index, patch in enumerate(patches):
        setting = f"{section}.patches[{index}]"
        if (patch.merge is None) == (patch.json is None):
            raise ConfigError(f"{setting} needs one of `merge` and `json`.", "Give it exactly one.")
        positions = [
            position
            for position, document in enumerate(documents)
            if document["kind"] == patch.kind and patch.name in (None, document["metadata"]["name"])
        ]
        if not positions:
            kinds = sorted({document["kind"] for document in documents})
            title = patch.kind + (f"/{patch.name}" if patch.name else "")
            raise ConfigError(
                f"{setting} matches no object: there is no {title}.{suggest_nearest(patch.kind, kinds)}",
                f"Objects: {', '.join(map(object_title, documents))}.",
            )
        for position in positions:
            documents[position] = _apply_cluster_patch(patch, documents[position], setting, target)
    return documents


def _apply_cluster_patch(patch: Patch, document: dict[str, Any], setting: str, target: str) -> dict[str, Any]:
    identity = (document["apiVersion"], object_title(document), document.get("spec", {}).get("selector"))
    result: dict[str, Any]
    if patch.merge is not None:
        result = merge_patch(document, patch.merge)
    else:
        import jsonpatch

        try:
            result = jsonpatch.apply_patch(document, patch.json or [])
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise ConfigError(
                f"{setting} cannot be applied to {object_title(document)}: {error}",
                f"See the objects without the patch: mlapp deploy --target {target} --dry-run.",
            ) from None
    if identity != (result.get("apiVersion"), object_title(result), result.get("spec", {}).get("selector")):
        raise ConfigError(
            f"{setting} changes the kind, name or selector of {object_title(document)}.",
            "Leave these fields unchanged: mlapp finds its objects by them.",
        )
    return result


def merge_patch(base: Any, patch: Any) -> Any:
    """`base` with the strategic merge patch applied."""
    if not isinstance(patch, dict) or not isinstance(base, dict):
        return _strip_patch_directives(patch)
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(base)
    for key, value in patch.items():
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merge_patched_list(key, result.get(key), value)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _merge_patched_list(name: str, base: Any, patch: list[Any]) -> list[Any]:
    key = next((key for key in MERGE_KEYS.get(name, ()) if all(isinstance(i, dict) and key in i for i in patch)), None)
    if key is None or not isinstance(base, list):
        return [_strip_patch_directives(item) for item in patch]
    result = list(base)
    for item in patch:
        position = next((index for index, old in enumerate(result) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if position is not None:
                del result[position]
        elif position is None:
            result.append(_strip_patch_directives(item))
        else:
            result[position] = merge_patch(result[position], item)
    return result


def _strip_patch_directives(value: Any) -> Any:
    """A patch's value without nulls and directives, for a field that the object does not have."""
    if isinstance(value, dict):
        return {
            key: _strip_patch_directives(item) for key, item in value.items() if item is not None and key != "$patch"
        }
    return [_strip_patch_directives(item) for item in value] if isinstance(value, list) else value
