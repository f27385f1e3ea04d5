"""The triggers of the alias `live`: a bucket's notifications, a queue, and an EventBridge schedule.

Each method is idempotent and keeps entries of others: a bucket has one notification document for all its users.

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
            attributes = self._read_trigger_queue(triggers.sqs.queue)
            visibility_timeout = int(attributes["VisibilityTimeout"])
            if visibility_timeout < settings.timeout:
                raise DeployError(
                    f"The queue {triggers.sqs.queue} has a visibility timeout of {visibility_timeout} s, less than the "
                    f"function's timeout of {settings.timeout} s, which Lambda does not accept.",
                    f"Set the queue's visibility timeout to {6 * settings.timeout} s, or lower targets.lambda.timeout.",
                )

    def set_triggers(self, new_triggers: Triggers, old_triggers: Triggers, alias_arn: str, progress: Reporter) -> None:
        """Create `new_triggers`, and remove those of `old_triggers` that are not among them."""
        self.remove_triggers(
            Triggers(
                s3=old_triggers.s3
                if old_triggers.s3 and not _is_same_trigger_bucket(old_triggers, new_triggers)
                else None,
                sqs=old_triggers.sqs
                if old_triggers.sqs and not _is_same_trigger_queue(old_triggers, new_triggers)
                else None,
                schedule=old_triggers.schedule if new_triggers.schedule is None else None,
            ),
            alias_arn,
            progress,
        )
        if new_triggers.s3 is not None:
            self._set_trigger_notification(new_triggers.s3, alias_arn, progress)
        if new_triggers.sqs is not None:
            self._set_trigger_mapping(new_triggers.sqs, alias_arn, progress)
        if new_triggers.schedule is not None:
            self._set_trigger_schedule(new_triggers.schedule, alias_arn, progress)

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
            response = self._session.client("s3").get_bucket_notification_configuration(Bucket=bucket)
        return {key: value for key, value in response.items() if key != "ResponseMetadata"}

    def _write_trigger_notifications(
        self, bucket: str, old_content: dict[str, Any], entries: list[dict[str, Any]]
    ) -> None:
        new_content = {**old_content, "LambdaFunctionConfigurations": entries}
        with self._session.translate_errors():
            self._session.client("s3").put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=new_content
            )

    def _set_trigger_notification(self, trigger: S3Trigger, alias_arn: str, progress: Reporter) -> None:
        source = f"arn:{_parse_trigger_partition(alias_arn)}:s3:::{trigger.bucket}"
        self._allow_trigger_invocation("s3", "s3.amazonaws.com", source)
        content = self._read_trigger_notifications(trigger.bucket)
        entries = content.get("LambdaFunctionConfigurations") or []
        own_entry = make_trigger_notification(trigger, self._function, alias_arn)
        other_entries = [entry for entry in entries if entry["Id"] != own_entry["Id"]]
        if entries != [*other_entries, own_entry]:
            self._write_trigger_notifications(trigger.bucket, content, [*other_entries, own_entry])
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
        other_entries = [entry for entry in entries if entry["Id"] != name_trigger_notification(self._function)]
        if len(other_entries) != len(entries):
            self._write_trigger_notifications(bucket, content, other_entries)
        return len(other_entries) != len(entries)

    def _read_trigger_queue(self, queue: str) -> dict[str, str]:
        """The attributes of a queue by its name or ARN."""
        client = self._session.client("sqs")
        options = {}
        if queue.startswith("arn:"):
            options = {"QueueOwnerAWSAccountId": queue.split(":")[4]}
        with self._session.translate_errors():
            url = client.get_queue_url(QueueName=queue.rpartition(":")[2], **options)["QueueUrl"]
            attributes: dict[str, str] = client.get_queue_attributes(
                QueueUrl=url, AttributeNames=["QueueArn", "VisibilityTimeout"]
            )["Attributes"]
        return attributes

    def _find_trigger_mapping(self, queue: str, alias_arn: str) -> dict[str, Any] | None:
        """The mapping from a queue to the alias. Also finds the mapping of a deleted queue."""
        with self._session.translate_errors():
            pages = self._session.client("lambda").get_paginator("list_event_source_mappings")
            mappings = [
                mapping
                for page in pages.paginate(FunctionName=alias_arn)
                for mapping in page["EventSourceMappings"]
                if queue in (mapping["EventSourceArn"], mapping["EventSourceArn"].rpartition(":")[2])
            ]
        return mappings[0] if mappings else None

    def _set_trigger_mapping(self, trigger: SqsTrigger, alias_arn: str, progress: Reporter) -> None:
        arguments = make_trigger_mapping(trigger, self._read_trigger_queue(trigger.queue)["QueueArn"])
        mapping = self._find_trigger_mapping(trigger.queue, alias_arn)
        client = self._session.client("lambda")
        with self._session.translate_errors():
            if mapping is None:
                client.create_event_source_mapping(FunctionName=alias_arn, **arguments)
                progress(f"messages of the queue {trigger.queue} invoke {self._function}:{LIVE}")
            elif mapping.get("BatchSize") != trigger.batch:
                client.update_event_source_mapping(
                    UUID=mapping["UUID"], FunctionName=alias_arn, BatchSize=trigger.batch,
                    FunctionResponseTypes=arguments["FunctionResponseTypes"],
                )  # fmt: skip

    def _remove_trigger_mapping(self, queue: str, alias_arn: str) -> bool:
        mapping = self._find_trigger_mapping(queue, alias_arn)
        if mapping is None:
            return False
        with self._session.translate_errors():
            self._session.client("lambda").delete_event_source_mapping(UUID=mapping["UUID"])
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

        statement = {"FunctionName": self._function, "Qualifier": LIVE, "StatementId": STATEMENTS[kind]}
        account = {"SourceAccount": self._session.account} if kind == "s3" else {}
        with self._session.translate_errors():
            client = self._session.client("lambda")
            for is_last in (False, True):
                try:
                    client.add_permission(
                        **statement, Action="lambda:InvokeFunction", Principal=principal, SourceArn=source, **account
                    )
                    return
                except ClientError as error:
                    if is_last or error.response["Error"].get("Code") != "ResourceConflictException":
                        raise
                    client.remove_permission(**statement)

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


def _is_same_trigger_bucket(old: Triggers, new: Triggers) -> bool:
    return old.s3 is not None and new.s3 is not None and old.s3.bucket == new.s3.bucket


def _is_same_trigger_queue(old: Triggers, new: Triggers) -> bool:
    return old.sqs is not None and new.sqs is not None and old.sqs.queue == new.sqs.queue


def _parse_trigger_partition(arn: str) -> str:
    """The partition of an ARN: `aws`, `aws-cn`, …"""
    return arn.split(":")[1]
