"""The triggers of the alias `live`: a bucket's notifications, a queue, and an EventBridge schedule.

Each method is idempotent and keeps what others created: a bucket has one notification document for all its users.

Source: https://docs.aws.amazon.com/lambda/latest/dg/with-s3.html, with-sqs.html and
https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html.
"""

from __future__ import annotations

from typing import Any

from mlapp.aws_lambda.settings import LambdaSettings, S3Trigger, SqsTrigger, Triggers
from mlapp.deploy.aws.session import AwsSession, is_missing_on_aws
from mlapp.deploy.aws_lambda.documents import LIVE
from mlapp.deploy.aws_lambda.trigger_documents import (
    make_trigger_mapping,
    make_trigger_notification,
    name_trigger_notification,
    name_trigger_rule,
)
from mlapp.deploy.target import DeployError
from mlapp.reporting import Reporter

STATEMENTS = {"s3": "mlappS3", "schedule": "mlappSchedule"}
"""IDs of the statements in the alias's policy, by the kind of trigger that they allow."""


class TriggerSet:
    """The triggers of one function."""

    def __init__(self, session: AwsSession, function: str) -> None:
        self._session = session
        self._function = function

    def require_trigger_sources(self, settings: LambdaSettings) -> None:
        """Check, before anything is changed, that the bucket and the queue exist and are suitable.

        Raises:
            DeployError: one does not exist, a permission is missing, or the queue's visibility timeout is too short.
        """
        triggers = settings.triggers
        if triggers.s3 is not None:
            self._read_trigger_notifications(triggers.s3.bucket)
        if triggers.sqs is not None:
            found = self._read_trigger_queue(triggers.sqs.queue)
            visible = int(found["VisibilityTimeout"])
            if visible < settings.timeout:
                raise DeployError(
                    f"The queue {triggers.sqs.queue} has a visibility timeout of {visible} s, less than the function's "
                    f"timeout of {settings.timeout} s, which Lambda does not accept.",
                    f"Set the queue's visibility timeout to {6 * settings.timeout} s, or lower targets.lambda.timeout.",
                )

    def set_triggers(self, wanted: Triggers, before: Triggers, alias_arn: str, progress: Reporter) -> None:
        """Create the triggers `wanted`, and remove those of `before` that are no longer wanted."""
        self.remove_triggers(
            Triggers(
                s3=before.s3 if before.s3 and not _is_same_trigger_bucket(before, wanted) else None,
                sqs=before.sqs if before.sqs and not _is_same_trigger_queue(before, wanted) else None,
                schedule=before.schedule if wanted.schedule is None else None,
            ),
            alias_arn,
            progress,
        )
        if wanted.s3 is not None:
            self._set_trigger_notification(wanted.s3, alias_arn, progress)
        if wanted.sqs is not None:
            self._set_trigger_mapping(wanted.sqs, alias_arn, progress)
        if wanted.schedule is not None:
            self._set_trigger_schedule(wanted.schedule, alias_arn, progress)

    def remove_triggers(self, triggers: Triggers, alias_arn: str, progress: Reporter) -> list[str]:
        """Remove the triggers that exist; returns their names."""
        removed = []
        if triggers.s3 is not None and self._remove_trigger_notification(triggers.s3.bucket):
            removed.append(f"notification of s3://{triggers.s3.bucket}")
        if triggers.sqs is not None and self._remove_trigger_mapping(triggers.sqs.queue, alias_arn):
            removed.append(f"mapping of queue {triggers.sqs.queue}")
        if triggers.schedule is not None and self._remove_trigger_schedule():
            removed.append(f"rule {name_trigger_rule(self._function)}")
        for name in removed:
            progress(f"remove the {name}")
        return removed

    def _read_trigger_notifications(self, bucket: str) -> dict[str, Any]:
        with self._session.translate_errors():
            found = self._session.client("s3").get_bucket_notification_configuration(Bucket=bucket)
        return {key: value for key, value in found.items() if key != "ResponseMetadata"}

    def _write_trigger_notifications(self, bucket: str, content: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        changed = {**content, "LambdaFunctionConfigurations": entries}
        with self._session.translate_errors():
            self._session.client("s3").put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=changed
            )

    def _set_trigger_notification(self, trigger: S3Trigger, alias_arn: str, progress: Reporter) -> None:
        source = f"arn:{_parse_trigger_partition(alias_arn)}:s3:::{trigger.bucket}"
        self._allow_trigger_invocation("s3", "s3.amazonaws.com", source)
        content = self._read_trigger_notifications(trigger.bucket)
        entries = content.get("LambdaFunctionConfigurations") or []
        wanted = make_trigger_notification(trigger, self._function, alias_arn)
        others = [entry for entry in entries if entry["Id"] != wanted["Id"]]
        if entries != [*others, wanted]:
            self._write_trigger_notifications(trigger.bucket, content, [*others, wanted])
            progress(f"new files in s3://{trigger.bucket}/{trigger.prefix} invoke {self._function}:{LIVE}")

    def _remove_trigger_notification(self, bucket: str) -> bool:
        from botocore.exceptions import ClientError

        self._forbid_trigger_invocation("s3")
        try:
            content = self._read_trigger_notifications(bucket)
        except DeployError as error:
            if isinstance(error.__cause__, ClientError) and error.__cause__.response["Error"]["Code"] == "NoSuchBucket":
                return False
            raise
        entries = content.get("LambdaFunctionConfigurations") or []
        others = [entry for entry in entries if entry["Id"] != name_trigger_notification(self._function)]
        if len(others) != len(entries):
            self._write_trigger_notifications(bucket, content, others)
        return len(others) != len(entries)

    def _read_trigger_queue(self, queue: str) -> dict[str, str]:
        """The attributes of a queue by its name or ARN."""
        client = self._session.client("sqs")
        options = {}
        if queue.startswith("arn:"):
            options = {"QueueOwnerAWSAccountId": queue.split(":")[4]}
        with self._session.translate_errors():
            url = client.get_queue_url(QueueName=queue.rpartition(":")[2], **options)["QueueUrl"]
            found: dict[str, str] = client.get_queue_attributes(
                QueueUrl=url, AttributeNames=["QueueArn", "VisibilityTimeout"]
            )["Attributes"]
        return found

    def _find_trigger_mapping(self, queue: str, alias_arn: str) -> dict[str, Any] | None:
        """The mapping of a queue, which can have been deleted, to the alias."""
        with self._session.translate_errors():
            pages = self._session.client("lambda").get_paginator("list_event_source_mappings")
            found = [
                mapping
                for page in pages.paginate(FunctionName=alias_arn)
                for mapping in page["EventSourceMappings"]
                if queue in (mapping["EventSourceArn"], mapping["EventSourceArn"].rpartition(":")[2])
            ]
        return found[0] if found else None

    def _set_trigger_mapping(self, trigger: SqsTrigger, alias_arn: str, progress: Reporter) -> None:
        wanted = make_trigger_mapping(trigger, self._read_trigger_queue(trigger.queue)["QueueArn"])
        found = self._find_trigger_mapping(trigger.queue, alias_arn)
        client = self._session.client("lambda")
        with self._session.translate_errors():
            if found is None:
                client.create_event_source_mapping(FunctionName=alias_arn, **wanted)
                progress(f"messages of the queue {trigger.queue} invoke {self._function}:{LIVE}")
            elif found.get("BatchSize") != trigger.batch:
                client.update_event_source_mapping(
                    UUID=found["UUID"], FunctionName=alias_arn, BatchSize=trigger.batch,
                    FunctionResponseTypes=wanted["FunctionResponseTypes"],
                )  # fmt: skip

    def _remove_trigger_mapping(self, queue: str, alias_arn: str) -> bool:
        found = self._find_trigger_mapping(queue, alias_arn)
        if found is None:
            return False
        with self._session.translate_errors():
            self._session.client("lambda").delete_event_source_mapping(UUID=found["UUID"])
        return True

    def _set_trigger_schedule(self, schedule: str, alias_arn: str, progress: Reporter) -> None:
        client, name = self._session.client("events"), name_trigger_rule(self._function)
        with self._session.translate_errors():
            rule = client.put_rule(Name=name, ScheduleExpression=schedule, State="ENABLED")["RuleArn"]
        self._allow_trigger_invocation("schedule", "events.amazonaws.com", rule)
        with self._session.translate_errors():
            client.put_targets(Rule=name, Targets=[{"Id": "live", "Arn": alias_arn}])
        progress(f"the schedule {schedule} invokes {self._function}:{LIVE}")

    def _remove_trigger_schedule(self) -> bool:
        from botocore.exceptions import ClientError

        client, name = self._session.client("events"), name_trigger_rule(self._function)
        self._forbid_trigger_invocation("schedule")
        with self._session.translate_errors():
            try:
                client.remove_targets(Rule=name, Ids=["live"])
                client.delete_rule(Name=name)
            except ClientError as error:
                if not is_missing_on_aws(error):
                    raise
                return False
        return True

    def _allow_trigger_invocation(self, kind: str, principal: str, source: str) -> None:
        """Allow an AWS service to invoke the alias for one source, replacing an earlier source."""
        from botocore.exceptions import ClientError

        place = {"FunctionName": self._function, "Qualifier": LIVE, "StatementId": STATEMENTS[kind]}
        account = {"SourceAccount": self._session.account} if kind == "s3" else {}
        with self._session.translate_errors():
            client = self._session.client("lambda")
            for is_last in (False, True):
                try:
                    client.add_permission(
                        **place, Action="lambda:InvokeFunction", Principal=principal, SourceArn=source, **account
                    )
                    return
                except ClientError as error:
                    if is_last or error.response["Error"].get("Code") != "ResourceConflictException":
                        raise
                    client.remove_permission(**place)

    def _forbid_trigger_invocation(self, kind: str) -> None:
        from botocore.exceptions import ClientError

        with self._session.translate_errors():
            try:
                self._session.client("lambda").remove_permission(
                    FunctionName=self._function, Qualifier=LIVE, StatementId=STATEMENTS[kind]
                )
            except ClientError as error:
                if not is_missing_on_aws(error):
                    raise


def _is_same_trigger_bucket(before: Triggers, wanted: Triggers) -> bool:
    return before.s3 is not None and wanted.s3 is not None and before.s3.bucket == wanted.s3.bucket


def _is_same_trigger_queue(before: Triggers, wanted: Triggers) -> bool:
    return before.sqs is not None and wanted.sqs is not None and before.sqs.queue == wanted.sqs.queue


def _parse_trigger_partition(arn: str) -> str:
    """The partition of an ARN: `aws`, `aws-cn`, …"""
    return arn.split(":")[1]
