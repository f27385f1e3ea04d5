"""Fetch a run's outputs from Flyte's object store."""

from __future__ import annotations

from typing import Any

import msgspec

from mlapp.errors import StoreError, UsageError
from mlapp.flyte import file_transfer, promotion, task_bodies
from mlapp.flyte.connection import Connection
from mlapp.flyte.errors import FlyteError
from mlapp.flyte.interface import TrialResult
from mlapp.store import Manifest, ModelVersion, Store
from mlapp.temporary_folders import open_temporary_folder


def fetch_model(connection: Connection, run: str, store: Store, app: str, promote_if: str = "") -> ModelVersion:
    """Store the model of a run; returns the existing version if it was stored before.

    Raises:
        ExpiredError: its files have expired. FlyteError: the run has no model. UsageError: it is another app's.
        StoreError: a file does not match the manifest.
    """
    existing = next((old for old in store.versions(app) if old.origin.get("execution") == run), None)
    if existing is not None:
        return store.get(app, existing.version)
    url = fetch_run_output(connection, run, "model").scalar.blob.uri.rstrip("/")
    with open_temporary_folder("flyte") as folder:
        file_transfer.download_file(connection, f"{url}/{task_bodies.MANIFEST}", folder / task_bodies.MANIFEST)
        try:
            manifest = msgspec.json.decode((folder / task_bodies.MANIFEST).read_bytes(), type=Manifest)
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"The manifest of run {run} cannot be read: {error}.",
                "Upgrade mlapp here. If it is up to date, do not trust that run.",
            ) from error
        if manifest.app != app:
            raise UsageError(
                f"Run {run} trained '{manifest.app}', but this project is '{app}'.",
                "Fetch it in that project's folder.",
            )
        files = [f"{task_bodies.FILES}/{file}" for file in manifest.files]
        file_transfer.download_files(connection, url, files, folder)
        return promotion.save_and_promote(store, task_bodies.open_saved_version(folder), promote_if)


def fetch_predictions(connection: Connection, run: str) -> Any:
    """The predictions of a run, as a DataFrame.

    Raises:
        ExpiredError: the file has expired. FlyteError: the run has no predictions.
    """
    import pandas as pd

    url = fetch_run_output(connection, run, "predictions").scalar.blob.uri
    with open_temporary_folder("flyte") as folder:
        file = folder / "predictions.parquet"
        file_transfer.download_file(connection, url, file, "mlapp predict --remote")
        return pd.read_parquet(file)


def fetch_trial_results(connection: Connection, run: str) -> list[TrialResult | None]:
    """The result of each trial of a run, in order; None for a killed one.

    Raises:
        FlyteError: the run has no results.
    """
    texts = [
        _read_run_output_text(literal) for literal in fetch_run_output(connection, run, "results").collection.literals
    ]
    return [None if text is None else msgspec.json.decode(text, type=TrialResult) for text in texts]


def _read_run_output_text(literal: Any) -> str | None:
    inner = literal.scalar.union.value if literal.scalar.union is not None else literal
    return None if inner.scalar.primitive is None else str(inner.scalar.primitive.string_value)


def fetch_run_output(connection: Connection, run: str, name: str) -> Any:
    """One output of a run, as a Flyte literal.

    Raises:
        FlyteError: the run has no such output.
    """
    from flyteidl.core import literals_pb2
    from flytekit.models.core.identifier import WorkflowExecutionIdentifier
    from flytekit.models.literals import LiteralMap

    settings = connection.settings
    identifier = WorkflowExecutionIdentifier(settings.project, settings.domain, run)
    data = connection.call_client(connection.client.get_execution_data, identifier)
    outputs = data.full_outputs.literals
    if not outputs and data.outputs.bytes > 0:
        with open_temporary_folder("flyte") as folder:
            file = folder / "outputs.pb"
            file_transfer.download_file(connection, data.outputs.url, file)
            outputs = LiteralMap.from_flyte_idl(literals_pb2.LiteralMap.FromString(file.read_bytes())).literals
    if name not in outputs:
        raise FlyteError(f"Run {run} has no output '{name}'.", "Only a successful run has outputs: mlapp runs list.")
    return outputs[name]
