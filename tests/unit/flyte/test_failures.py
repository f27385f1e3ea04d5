"""What a failed task says, as flytekit writes it into error.pb."""

from __future__ import annotations

from mlapp.flyte.failures import split_error

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
    trace, message = split_error(CHAINED)
    assert 'File "app.py", line 19, in read' in trace
    assert 'File "index.py"' in trace
    assert "StageError" not in trace
    assert message == "data_reader 'read' raised KeyError: 'size'\nFix it at app.py:19."
