"""The message of a failed task, as flytekit writes it into error.pb."""

from __future__ import annotations

import pytest

from mlapp.flyte.failures import explain_failure, split_failure_text
from mlapp.flyte.interface import Run, TaskRun
from mlapp.flyte.run_pods import describe_pod_reason

CHAINED = """[1/1] currentAttempt done. Last Error: USER::
Trace:

    Traceback (most recent call last):
      File "index.py", line 3816, in get_loc
    KeyError: 'size'

    The above exception was the direct cause of the following exception:

    Traceback (most recent call last):
      File "app.py", line 19, in read
        return table[column]
    KeyError: 'size'

    The above exception was the direct cause of the following exception:

    Traceback (most recent call last):
      File "base_task.py", line 767, in dispatch_execute
    mlapp.flyte.tasks.StageError: data_reader 'read' raised KeyError: 'size'
    Fix it at app.py:19.
    in task: read

Message:

    StageError: data_reader 'read' raised KeyError: 'size'
    Fix it at app.py:19.
    in task: read"""


def test_the_traceback_keeps_the_causes_of_the_user_s_error_and_drops_our_own_frame() -> None:
    trace, message = split_failure_text(CHAINED)
    assert 'File "app.py", line 19, in read' in trace
    assert 'File "index.py"' in trace
    assert "StageError" not in trace
    assert message == "data_reader 'read' raised KeyError: 'size'\nFix it at app.py:19."


def fail(error: str) -> tuple[str, str]:
    step = TaskRun("train", "failed", error=error)
    failed = explain_failure(Run("r1", "flowers.train", "v1", "failed", "http://flyte/r1", steps=(step,)))
    return failed.what, failed.todo


KILLED = (
    "currentAttempt done. Last Error: {0}::Pod failed. No message received from kubernetes.\r\n"
    "[r1-n0-1] terminated with exit code (137). Reason [{1}]. Message: \n."
)
UNREADY = "containers with unready status: [r1-n0-0]"


@pytest.mark.parametrize(
    ("error", "what", "todo"),
    [
        (
            KILLED.format("USER", "OOMKilled"),
            "Task train ran out of memory.",
            "@app.trainer(resources=Resources(memory='16Gi'))",
        ),
        (
            KILLED.format("SYSTEM", "Error"),
            "Task train was killed, probably because it ran out of memory.",
            "@app.model if the app has no trainer",
        ),
        (
            f"[1/1] currentAttempt done. Last Error: USER::Grace period [3m0s] exceeded|{UNREADY}|"
            'Back-off pulling image "a"',
            'Task train: the cluster cannot pull the image: Back-off pulling image "a"',
            "Check that it is pushed",
        ),
        (
            f'{UNREADY}|Failed to apply default image tag: couldn\'t parse image name "A:1": invalid reference format',
            "Task train: the cluster cannot pull the image: Failed to apply",
            "Check that it is pushed",
        ),
        ("task execution timeout [1h0m0s] expired", "Task train took longer than its timeout", "(timeout=3600)"),
        (
            "failed to get data: connection refused",
            "Task train could not reach Flyte's object storage",
            "mlapp runs recover r1",
        ),
        ("object [r1-n0-0] terminated in the background, manually", "Task train failed: object [r1-n0-0]", "See http"),
        (
            "Trace:\n\n    Traceback (most recent call last):\n    ImportError: torch\n\nMessage:\n\n"
            "    ImportError: torch",
            "Task train failed: ImportError: torch",
            "See http",
        ),
    ],
)
def test_what_the_cluster_says_is_explained(error: str, what: str, todo: str) -> None:
    output = fail(error)
    assert output[0].startswith(what)
    assert todo in output[1]


@pytest.mark.parametrize("text", ["exit code 137", "OOMKilled", "ImagePullBackOff", "connection refused", "timed out"])
def test_the_user_s_own_words_are_not_taken_for_the_cluster_s(text: str) -> None:
    error = CHAINED.replace("data_reader 'read' raised KeyError: 'size'", f"trainer 'fit' raised OSError: {text}")
    assert fail(error) == (f"Task train failed: trainer 'fit' raised OSError: {text}", "Fix it at app.py:19.")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (
            "Unschedulable:0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available",
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes are available",
        ),
        (
            f'[ContainersNotReady|ImagePullBackOff]: {UNREADY}|Back-off pulling image "a:1"',
            'ImagePullBackOff: Back-off pulling image "a:1"',
        ),
        (
            f"[ContainersNotReady|ContainerCreating]: {UNREADY}|",
            "its container is being created; a large image takes minutes",
        ),
        ("Demistify Pending", "the cluster has not scheduled its pod yet"),
        ("Exceeded resourcequota: used 4 of 4 cpu", "Exceeded resourcequota: used 4 of 4 cpu"),
    ],
)
def test_a_reason_is_quoted_from_the_cluster_without_flyte_s_frame(reason: str, message: str) -> None:
    assert describe_pod_reason(reason) == message
