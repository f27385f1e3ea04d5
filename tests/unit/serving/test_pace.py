"""Where the next call of a model runs: in the event loop when it is fast, in a thread when it is not."""

import pytest

from mlapp.serving.inference.latency import CALM, RECENT, Latency


@pytest.fixture
def fast():
    pace = Latency()
    for _ in range(10):
        pace.add_call(0.0003, rows=1)
    return pace


def test_a_model_is_slow_until_it_was_measured():
    pace = Latency()
    assert not pace.expects_fast(1)
    pace.add_call(0.001, rows=1)
    assert pace.expects_fast(1)


@pytest.mark.parametrize("held_up", [0.008, 0.03, 0.09])
def test_one_call_that_a_busy_machine_held_up_changes_nothing(fast, held_up):
    fast.add_call(held_up, rows=1)
    assert fast.expects_fast(1)


def test_a_model_that_becomes_slow_moves_to_a_thread_and_returns_after_enough_fast_calls(fast):
    for _ in range(3):
        fast.add_call(0.03, rows=1)
    assert not fast.is_fast
    for _ in range(CALM):
        fast.add_call(0.0003, rows=1)
    assert not fast.is_fast, "it needs longer after a relapse"
    for _ in range(CALM + RECENT):
        fast.add_call(0.0003, rows=1)
    assert fast.expects_fast(1)


def test_a_relapse_after_a_long_good_time_is_soon_forgiven(fast):
    for _ in range(20 * CALM):
        fast.add_call(0.0003, rows=1)
    for _ in range(RECENT):
        fast.add_call(0.02, rows=1)
    assert not fast.is_fast
    for _ in range(CALM + RECENT):
        fast.add_call(0.0003, rows=1)
    assert fast.expects_fast(1)


def test_one_very_long_call_is_enough_and_is_long_remembered(fast):
    fast.add_call(2.0, rows=1)
    for _ in range(1900):
        fast.add_call(0.0003, rows=1)
    assert not fast.is_fast
    for _ in range(200):
        fast.add_call(0.0003, rows=1)
    assert fast.expects_fast(1)


def test_a_large_batch_runs_in_a_thread_when_its_rows_are_expensive():
    pace = Latency()
    pace.add_call(0.004, rows=1)
    assert pace.expects_fast(1)
    assert not pace.expects_fast(64)
    pace.add_call(0.0045, rows=64)
    assert pace.expects_fast(64)
