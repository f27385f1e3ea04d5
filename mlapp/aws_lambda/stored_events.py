"""Events with predictions that go to a bucket: new files in S3, SQS messages, and schedules.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html,
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote_plus

from mlapp.errors import MissingExtraError

log = logging.getLogger("mlapp.lambda")

DEFAULT_PREFIX = "predictions/"
OUTPUT_SUFFIX = ".predictions.json"
"""Suffix of files that the function writes."""
MEDIA_TYPES = {
    ".json": b"application/json",
    ".csv": b"text/csv",
    ".arrow": b"application/vnd.apache.arrow.file",
    ".npy": b"application/x-npy",
}
"""Media type of a file by suffix. `.gz` files are decompressed."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers of an equivalent request, without a content type if the suffix is unknown."""
        name = self.key.removesuffix(".gz")
        media = next((media for end, media in MEDIA_TYPES.items() if name.endswith(end)), None)
        headers = {} if media is None else {b"content-type": media}
        return {**headers, b"content-encoding": b"gzip"} if name != self.key else headers


class Bucket:
    """Reads input files from S3, and writes predictions. Imports boto3 on first use."""

    def __init__(self, output: str | None) -> None:
        bucket_name, _, prefix = (output or "").removeprefix("s3://").partition("/")
        self._bucket_name = bucket_name or None
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else "" if bucket_name else DEFAULT_PREFIX
        self._client: Any = None

    @property
    def has_destination(self) -> bool:
        """Whether `targets.lambda.output` gives a destination for predictions on inputs that are not files."""
        return self._bucket_name is not None

    def is_own_output(self, stored_object: StoredObject) -> bool:
        """Whether the function wrote the object: its own outputs would invoke it forever."""
        has_output_location = stored_object.bucket == (
            self._bucket_name or stored_object.bucket
        ) and stored_object.key.startswith(self._prefix)
        return has_output_location and stored_object.key.endswith(OUTPUT_SUFFIX)

    def read(self, stored_object: StoredObject) -> bytes:
        content: bytes = (
            self._open_s3_client().get_object(Bucket=stored_object.bucket, Key=stored_object.key)["Body"].read()
        )
        return content

    def write(self, name: str, body: bytes, bucket: str | None = None) -> StoredObject:
        """Write predictions as `name`; to `bucket` if `targets.lambda.output` is not set."""
        output_object = StoredObject(self._bucket_name or str(bucket), f"{self._prefix}{name}{OUTPUT_SUFFIX}")
        self._open_s3_client().put_object(
            Bucket=output_object.bucket, Key=output_object.key, Body=body, ContentType="application/json"
        )
        log.info("wrote %s", output_object)
        return output_object

    def _open_s3_client(self) -> Any:
        if self._client is None:
            try:
                import boto3
            except ModuleNotFoundError:
                raise MissingExtraError("Files in S3", "aws") from None
            self._client = boto3.client("s3")
        return self._client


def list_event_records(event: dict[str, Any], source: str) -> list[dict[str, Any]] | None:
    """The records of an `aws:s3` or `aws:sqs` event; None for any other event."""
    records = event.get("Records")
    if not isinstance(records, list) or not records:
        return None
    kinds = {record.get("eventSource") for record in records if isinstance(record, dict)}
    return records if kinds == {source} else None


def list_event_objects(event: dict[str, Any]) -> list[StoredObject] | None:
    """The objects in an S3 event, from S3 notifications or EventBridge; None for any other event."""
    if event.get("Event") == "s3:TestEvent":
        return []
    if event.get("source") == "aws.s3" and isinstance(event.get("detail"), dict):
        detail = event["detail"]
        return [StoredObject(detail["bucket"]["name"], detail["object"]["key"])]
    records = list_event_records(event, "aws:s3")
    return None if records is None else list(_iterate_stored_s3_objects(records))


def _iterate_stored_s3_objects(records: list[dict[str, Any]]) -> Iterator[StoredObject]:
    for record in records:
        if not str(record.get("eventName", "ObjectCreated")).startswith("ObjectRemoved"):
            yield StoredObject(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))


def is_schedule_event(event: dict[str, Any]) -> bool:
    """Whether an EventBridge schedule sent the event."""
    return event.get("source") in ("aws.events", "aws.scheduler") and "detail-type" in event


def name_scheduled_output(event: dict[str, Any]) -> str:
    """File name of a scheduled event's predictions: its time, so that a retry overwrites them."""
    return str(event.get("time") or datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
