"""Answer Lambda events with a model."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from mlapp.aws_lambda import limits, stored_events
from mlapp.aws_lambda.http_events import STREAM_MEDIA, HttpEvent, read_http_event
from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.aws_lambda.stored_events import Bucket, StoredObject
from mlapp.embed.answers import Answer, ModelSite, WebRequest
from mlapp.embed.host import ModelHost
from mlapp.errors import MlappError
from mlapp.plain_numbers import parse_plain_number
from mlapp.serving.decoding.json_body import encode_predictions

log = logging.getLogger("mlapp.lambda")

MARGIN = 0.1
"""Seconds reserved before the function's timeout for sending the response."""
KINDS = {400: "InvalidRequest", 406: "AnswerTooLarge", 413: "TooLarge", 415: "InvalidRequest", 422: "InvalidInputs",
         503: "ModelUnavailable", 504: "Timeout"}  # fmt: skip
"""The error type of a direct invocation, by the equivalent HTTP status."""


class InvocationError(Exception):
    """An invocation failed. The caller receives it as `errorType` and `errorMessage`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Stream:
    """A response in parts, with the media type that makes Lambda read status and headers from the first part."""

    parts: Iterable[bytes]
    media: str = STREAM_MEDIA


class ModelFunction:
    """Answers the events of one model."""

    def __init__(self, host: ModelHost, settings: LambdaSettings) -> None:
        self.host = host
        self._settings = settings
        self._site = ModelSite(host)
        self._bucket = Bucket(settings.output)

    def answer_event(self, body: bytes, remaining: float) -> bytes | Stream:
        """The response to an event, as JSON or in parts.

        Args:
            body: the event as JSON.
            remaining: seconds until Lambda stops the function.

        Raises:
            InvocationError: an event other than HTTP cannot be answered.
        """
        event = msgspec.json.decode(body)
        if not isinstance(event, dict):
            return self._answer_direct_event(body, remaining)
        http = read_http_event(event)
        if http is not None:
            return self._answer_http_event(http, remaining)
        objects = stored_events.list_event_objects(event)
        if objects is not None:
            return self._answer_s3_objects(objects, remaining)
        messages = stored_events.list_event_records(event, "aws:sqs")
        if messages is not None:
            return self._answer_sqs_messages(messages, remaining)
        if stored_events.is_schedule_event(event):
            return self._answer_schedule(stored_events.name_scheduled_output(event))
        return self._answer_direct_event(body, remaining)

    def _answer_http_event(self, event: HttpEvent, remaining: float) -> bytes | Stream:
        does_stream = self._settings.streaming and event.is_function_url
        request = event.request
        headers = _add_lambda_timeout_header(request.headers, remaining)
        if not does_stream:
            headers = {**headers, b"accept": b"application/json"}
        answer = self._site.answer_request(WebRequest(request.method, request.path, headers, request.read))
        return Stream(event.stream_answer(answer)) if does_stream else event.encode_answer(answer)

    def _answer_direct_event(self, body: bytes, remaining: float) -> bytes:
        answer = self._predict_event_body(body, {}, remaining)
        if len(answer) > limits.ANSWER:
            raise InvocationError(KINDS[406], limits.explain_response_limit(len(answer), limits.ANSWER))
        return answer

    def _answer_s3_objects(self, objects: list[StoredObject], remaining: float) -> bytes:
        """Predict each file. A failing file does not stop the others."""
        outputs, failures = [], []
        for stored_object in objects:
            if self._bucket.is_own_output(stored_object):
                continue
            try:
                answer = self._predict_event_body(self._bucket.read(stored_object), stored_object.headers, remaining)
            except InvocationError as error:
                log.error("%s: %s", stored_object, error)
                failures.append((f"{stored_object}: {error}", error.kind))
            else:
                outputs.append(str(self._bucket.write(stored_object.key, answer, stored_object.bucket)))
        if failures:
            raise InvocationError(failures[0][1], "; ".join(text for text, _ in failures))
        return msgspec.json.encode({"written": outputs})

    def _answer_sqs_messages(self, messages: list[dict[str, Any]], remaining: float) -> bytes:
        """Predict each message. SQS retries the messages in the response, or sends them to the dead-letter queue."""
        failures = []
        for message in messages:
            identity = str(message.get("messageId"))
            try:
                self._answer_sqs_message(identity, str(message.get("body", "")).encode(), remaining)
            except Exception as error:  # from the app's code: the other messages must not be sent again
                log.error("message %s: %s", identity, error)
                failures.append({"itemIdentifier": identity})
        return msgspec.json.encode({"batchItemFailures": failures})

    def _answer_sqs_message(self, identity: str, body: bytes, remaining: float) -> None:
        objects = _parse_queued_s3_objects(body)
        if objects is not None:
            self._answer_s3_objects(objects, remaining)
            return
        answer = self._predict_event_body(body, {}, remaining)
        if self._bucket.has_destination:
            self._bucket.write(identity, answer)

    def _answer_schedule(self, name: str) -> bytes:
        """Predict the data that the app's reader returns now."""
        if not self._bucket.has_destination:
            raise InvocationError(
                "NoOutput", "A schedule invoked the function, but the predictions have no destination: set "
                "targets.lambda.output in mlapp.yaml, such as s3://bucket/predictions.",
            )  # fmt: skip
        from mlapp import training

        try:
            served_model = self.host.open_endpoint().current
            predictor = served_model.predictor
            features = training.read_features(self.host.app, {}, trained_with=predictor.parameters)
            predictions = predictor.predict_features(features)
            rows = (
                list(predictions) if served_model.is_stream else served_model.list_rows(predictions, len(predictions))
            )
        except MlappError as error:
            raise InvocationError(type(error).__name__, f"{error.what} {error.todo}") from error
        output_object = self._bucket.write(f"schedule/{name}", encode_predictions(rows, served_model.tail))
        return msgspec.json.encode({"written": [str(output_object)], "rows": len(rows)})

    def _predict_event_body(self, body: bytes, headers: dict[bytes, bytes], remaining: float) -> bytes:
        """The body of the response to `POST /predict`.

        Raises:
            InvocationError: the response is not a prediction.
        """
        headers = {
            **_add_lambda_timeout_header(headers, remaining),
            b"accept": b"application/json",
            b"content-length": str(len(body)).encode(),
        }
        request = WebRequest("POST", "/predict", headers, io.BytesIO(body).read, is_trusted=True)
        answer: Answer = self._site.answer_request(request)
        if answer.status != 200:
            problem = msgspec.json.decode(answer.body)
            raise InvocationError(KINDS.get(answer.status, "ModelError"), problem["detail"])
        return answer.body


def _add_lambda_timeout_header(headers: Any, remaining: float) -> dict[bytes, bytes]:
    """The headers with the function's remaining time, unless the client's limit is shorter."""
    remaining_time = max(remaining - MARGIN, 0.001)
    client_limit = headers.get(b"x-request-timeout")
    if client_limit is not None and (parse_plain_number(client_limit.strip()) or 0.0) < remaining_time:
        return dict(headers)  # a wrong one is refused later
    return {**headers, b"x-request-timeout": b"%f" % remaining_time}


def _parse_queued_s3_objects(body: bytes) -> list[StoredObject] | None:
    """The objects of an S3 notification that came through a queue; None for any other message."""
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return stored_events.list_event_objects(content) if isinstance(content, dict) else None
