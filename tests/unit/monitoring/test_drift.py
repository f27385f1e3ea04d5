"""Drift: counts that add up, and alarms that mean something. The full table: tests/unit/monitoring/simulation.py."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd
import pytest

from mlapp.baseline import Baseline, build_baseline_columns, summarize_predictions
from mlapp.baseline.bins import KEYS, ORDER, build_bin_table, encode_bins
from mlapp.config import Drift
from mlapp.monitoring.count_limit import CountLimit
from mlapp.monitoring.counts import Counter, Counts, Slots, merge_counts
from mlapp.monitoring.drift import find_drifted_columns
from mlapp.monitoring.persistence import Persistence
from mlapp.monitoring.sampling import Sampler, hash_rows_for_sampling
from mlapp.monitoring.statistics import compute_binomial_tail, compute_js_distance, compute_ks_p, select_discoveries
from tests.unit.monitoring import simulation


def counted(baseline: Baseline, features: pd.DataFrame, **known: int) -> Counts:
    counter = Counter(baseline)
    counter.add_features(features)
    return Counts(version="1", since=0, until=60, rows=len(features), columns=counter.columns(), **known)


def test_keys_sort_as_the_numbers_do() -> None:
    random = np.random.default_rng(0)
    values = np.sort(np.concatenate([random.normal(0, 10.0**power, 500) for power in range(-8, 9)]))
    keys = ORDER[encode_bins(values, 3.0)].astype(int)
    assert (np.diff(keys) >= 0).all()
    assert keys.max() < KEYS


def test_training_rows_are_counted_into_the_bins_that_the_baseline_has() -> None:
    table = simulation.categories(np.random.default_rng(0), 5_000).assign(count=np.arange(5_000) % 7)
    baseline = Baseline(features=build_baseline_columns(table))
    counts = counted(baseline, table)
    for column in baseline.features:
        assert counts.columns[column.name] == [*column.counts, 0, 0, 0]


def test_eight_replicas_add_up_to_what_one_counts() -> None:
    random = np.random.default_rng(0)
    table = simulation.rarely_missing(random, 8_000).assign(color=simulation.categories(random, 8_000)["color"])
    baseline = Baseline(features=build_baseline_columns(table))
    whole = counted(baseline, table)
    parts = [counted(baseline, part) for part in np.array_split(table, 8)]
    random.shuffle(parts)
    merged = merge_counts(parts)
    assert merged is not None
    assert msgspec.json.encode(merged) == msgspec.json.encode(whole)


def test_the_counts_of_a_large_request_are_those_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = simulation.table(np.random.default_rng(0), 1_000, 5).astype(float)
    answers = table.to_numpy().tolist()
    baseline = Baseline(features=build_baseline_columns(table), predictions=summarize_predictions(answers))
    found = []
    for most in (10**6, 7):
        monkeypatch.setattr("mlapp.monitoring.counts.AT_ONCE", most)
        monkeypatch.setattr("mlapp.monitoring.counts.PREDICTIONS_AT_ONCE", most)
        counter = Counter(baseline)
        counter.add_features(table)
        counter.add_answers(answers)
        found.append(counter.columns())
    assert found[0] == found[1]
    assert len(found[0]) == 10


def test_an_array_counts_as_the_table_of_its_columns() -> None:
    table = simulation.table(np.random.default_rng(0), 1_000, 5).astype(float)
    baseline = Baseline(features=build_baseline_columns(table.to_numpy()))
    counter = Counter(baseline)
    counter.add_features(table.to_numpy())
    assert counter.columns() == {str(at): [*column.counts, 0, 0, 0] for at, column in enumerate(baseline.features)}


def test_counts_by_key_are_those_of_the_table_of_bins() -> None:
    random, rows = np.random.default_rng(0), 2_000
    table = simulation.table(random, rows, 5).astype(float)
    table = table.assign(
        big=random.normal(1e18, 1e17, rows),
        huge=random.normal(0, 1e200, rows),
        tiny=random.normal(0, 1e-40, rows),
        tenths=random.integers(0, 20, rows) / 10,
        often_zero=np.where(random.random(rows) < 0.6, 0, random.exponential(1, rows)),
    )
    baseline = Baseline(features=build_baseline_columns(table))
    live = np.concatenate(
        [table, table * 1.5, np.nextafter(table, np.inf), np.where(random.random(table.shape) < 0.1, np.nan, table)]
        + [np.full((1, 10), value) for value in (np.inf, -np.inf, 0.0)]
        + [np.array([column.edges[len(column.edges) // 2] for column in baseline.features])[None]]
    )
    slots = Slots(baseline.feature_slots)
    slots.add(live)
    expected = np.zeros_like(slots.counts)
    for at, column in enumerate(baseline.features):
        found = build_bin_table(column.low, column.keys, slots.first[column.name])
        expected += np.bincount(found[encode_bins(live[:, at], column.center)], minlength=len(expected))
    assert slots.counts.tolist() == expected.tolist()


def test_of_more_rows_than_the_limit_a_part_is_counted_and_stands_for_all() -> None:
    limit, counts = CountLimit(), Counts(version="1", since=0, until=1)
    limit.add_seconds(60)
    for rows in (50_000, 50_001, 20_000, 20_000):  # the first are the allowance of a quiet time
        chosen = limit.choose_rows(rows, 64)
        counts.add_rows(rows, [(len(some), weight) for some, weight in chosen])
        assert sum(len(some) * weight for some, weight in chosen) == rows
        assert all(len(np.unique(some)) == len(some) and some.max() < rows for some, _ in chosen)
        assert (len(chosen[0][0]) == rows) == (rows == 50_000)
        limit.add_seconds(0.5)
    assert counts.rows == 140_001
    assert 50_000 < counts.rows * counts.effective_share < 70_000
    whole = Counts(version="1", since=0, until=1, rows=1_000)
    whole.add(counts)
    assert (whole.rows, whole.squares) == (141_001, counts.squares + 1_000)


def test_a_part_of_the_rows_raises_no_other_alarms_than_all_of_them() -> None:
    random = np.random.default_rng(0)
    baseline = Baseline(features=build_baseline_columns(simulation.rarely_missing(random, 20_000)))
    for change, alarms in ((lambda live, random: live, 0), (simulation.with_missing(0.05), 10)):
        found = 0
        for _ in range(10):
            counter, rows = Counter(baseline), change(simulation.rarely_missing(random, 400), random)
            counter.add_features(rows, 30)
            counts = Counts(version="1", since=0, until=1, columns=counter.columns())
            counts.add_rows(12_000, [(400, 30)])
            found += bool(find_drifted_columns(baseline, counts, Drift()))
        assert found >= alarms if alarms else found == 0


def test_values_of_unique_texts_are_not_stored() -> None:
    table = pd.DataFrame({"name": [f"person {at}" for at in range(1_000)], "city": ["Rome", "Oslo"] * 500})
    name, city = build_baseline_columns(table)
    assert (name.kind, name.values) == ("text", [])
    assert city.values == ["Oslo", "Rome"]
    assert build_baseline_columns(table, {"city": "drop"})[1].values == []


def test_a_wide_table_s_baseline_stays_small() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(20_000, 64)) * 1e6, columns=[f"a long name {at}" for at in range(64)])
    columns = build_baseline_columns(table)
    assert max(len(column.counts) for column in columns) == 200
    assert len(msgspec.json.encode(Baseline(features=columns, transformed=columns))) < 1_000_000


@pytest.mark.parametrize("rows", [300, 1_000])
def test_nothing_drifts_and_nothing_is_an_alarm(rows: int) -> None:
    found = list(simulation.windows(150, rows))
    assert simulation.share(iter(found)) <= 0.002
    assert simulation.persistent(iter(found)) == 0


def test_a_small_shift_of_one_of_twenty_columns_is_seen() -> None:
    normal = {"kinds": ("normal",)}
    assert simulation.share(simulation.windows(100, 1_000, simulation.shifted(0.25), **normal)) >= 0.95
    assert simulation.share(simulation.windows(100, 300, simulation.shifted(0.5), **normal)) >= 0.99
    assert simulation.share(simulation.windows(4, 50_000, simulation.shifted(0.1), **normal)) == 0


def test_categories_missing_and_new_values_are_seen() -> None:
    assert simulation.share(simulation.windows(150, 300, simulation.more_black, make=simulation.categories)) >= 0.95
    missing = list(simulation.windows(60, 500, simulation.with_missing(0.05), make=simulation.rarely_missing))
    assert simulation.share(iter(missing)) >= 0.95
    assert {finding.kind for findings in missing for finding in findings} == {"missing"}
    new = list(simulation.windows(60, 300, simulation.new_color, make=simulation.categories))
    assert np.mean([any(one.kind == "new_value" for one in found) for found in new]) >= 0.95


def test_a_fall_of_quality_is_seen_and_chance_is_not() -> None:
    assert simulation.quality(0.91) >= 0.95
    assert [simulation.quality(0.96, count=20_000, seed=seed) for seed in (1, 2)] == [0, 0]


def test_refusals_of_a_field_are_seen_also_without_a_row_that_was_answered() -> None:
    (found,) = find_drifted_columns(
        Baseline(), Counts(version="1", since=0, until=1, refused=400, fields={"age": 400}), Drift()
    )
    assert (found.kind, found.column, found.value) == ("refused", "age", 1.0)
    few = Counts(version="1", since=0, until=1, rows=5_000, refused=4, fields={"age": 4})
    assert not find_drifted_columns(Baseline(), few, Drift())


def test_a_value_out_of_the_range_of_training_is_seen() -> None:
    table = pd.DataFrame({"age": np.random.default_rng(0).integers(18, 80, 5_000)})
    baseline = Baseline(features=build_baseline_columns(table))
    live = table.head(400).assign(age=lambda rows: rows["age"].where(rows.index > 20, 900))
    found = find_drifted_columns(baseline, counted(baseline, live), Drift())
    assert ("out_of_range", "age") in {(finding.kind, finding.column) for finding in found}


def test_predictions_have_columns_of_their_own() -> None:
    assert [column.name for column in summarize_predictions([{"label": "a", "score": 0.5}] * 10)] == [
        "prediction.label",
        "prediction.score",
    ]
    assert [column.kind for column in summarize_predictions([1, 2, 1])] == ["category"]
    assert [column.name for column in summarize_predictions([[0.1, 0.9]] * 9)] == ["prediction[0]", "prediction[1]"]


def test_an_alarm_needs_two_of_three_windows() -> None:
    alarms = Persistence("2/3")
    assert [bool(alarms.add(seen)) for seen in ({"x"}, set(), {"x"}, set(), set(), {"x"}, {"y"})] == [
        False,
        False,
        True,
        False,
        False,
        False,
        False,
    ]


def test_replicas_sample_the_same_rows() -> None:
    hashes = hash_rows_for_sampling([b"request-%d" % at for at in range(20_000)], [2] * 20_000)
    first, weight = Sampler(10.0).choose(hashes, 1.0)
    second, _ = Sampler(10.0).choose(hashes, 1.0)
    assert first.tolist() == second.tolist()
    assert 300 / 2 < len(first) <= 600
    assert len(first) * weight == pytest.approx(40_000, rel=0.2)
    more, _ = Sampler(20.0).choose(hashes, 1.0)
    assert set(first.tolist()) <= set(more.tolist())


def test_the_hash_of_an_id_does_not_depend_on_the_ids_beside_it() -> None:
    ids = [b"a", b"a\nb", b"0123456789abcdef" * 2, b"\xff" * 9, b"z" * 64]
    together = hash_rows_for_sampling(ids, [1] * len(ids)).tolist()
    assert together == [hash_rows_for_sampling([one], [1])[0] for one in ids]
    assert len(set(together)) == len(ids)


def test_the_statistics_are_those_of_the_books() -> None:
    # Values by scipy.stats: kstwobign.sf(1.36), binom.sf(44, 300, 0.05), jensenshannon([.05, .95], [.15, .85]).
    assert compute_ks_p(1.36 / (10_000 + 0.12), 2 * 10_000**2, 2 * 10_000**2) == pytest.approx(0.0494, abs=2e-4)
    assert compute_binomial_tail(45, 300, 0.05) == pytest.approx(6.3688e-11, rel=1e-3)
    assert compute_js_distance(np.array([5, 95]), np.array([15, 85])) == pytest.approx(0.1203, abs=1e-4)
    assert select_discoveries([0.01, 0.03, 0.02, 0.9], 0.05) == [True, True, True, False]
