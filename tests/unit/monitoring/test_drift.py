"""Drift: counts that add up, and alarms that mean something. The full table: tests/unit/monitoring/simulation.py."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pandas as pd
import pytest

from mlapp.baseline import Baseline, build_baseline_columns, summarize_predictions
from mlapp.baseline.bins import KEYS, ORDER, build_bin_table, encode_bins
from mlapp.config import Drift
from mlapp.monitoring.count_limit import MOST, CountLimit
from mlapp.monitoring.counts import Counter, Counts, Slots, merge_counts
from mlapp.monitoring.drift import find_drifted_columns
from mlapp.monitoring.persistence import Persistence
from mlapp.monitoring.sampling import Sampler, find_rows_below, hash_requests, hash_rows
from mlapp.monitoring.statistics import compute_binomial_tail, compute_js_distance, compute_ks_p, select_discoveries
from tests.unit.monitoring import simulation


def count_rows(baseline: Baseline, features: pd.DataFrame, **known: int) -> Counts:
    counter = Counter(baseline)
    counter.add_features(features)
    return Counts(version="1", since=0, until=60, rows=len(features), columns=counter.list_column_counts(), **known)


def test_keys_sort_as_the_numbers_do() -> None:
    random = np.random.default_rng(0)
    values = np.sort(np.concatenate([random.normal(0, 10.0**power, 500) for power in range(-8, 9)]))
    keys = ORDER[encode_bins(values, 3.0)].astype(int)
    assert (np.diff(keys) >= 0).all()
    assert keys.max() < KEYS


def test_training_rows_are_counted_into_the_bins_that_the_baseline_has() -> None:
    table = simulation.categories(np.random.default_rng(0), 5_000).assign(count=np.arange(5_000) % 7)
    baseline = Baseline(features=build_baseline_columns(table))
    counts = count_rows(baseline, table)
    for column in baseline.features:
        assert counts.columns[column.name] == [*column.counts, 0, 0, 0]


def test_eight_replicas_add_up_to_what_one_counts() -> None:
    random = np.random.default_rng(0)
    table = simulation.rarely_missing(random, 8_000).assign(color=simulation.categories(random, 8_000)["color"])
    baseline = Baseline(features=build_baseline_columns(table))
    whole = count_rows(baseline, table)
    parts = [count_rows(baseline, part) for part in np.array_split(table, 8)]
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
        found.append(counter.list_column_counts())
    assert found[0] == found[1]
    assert len(found[0]) == 10


def test_an_array_counts_as_the_table_of_its_columns() -> None:
    table = simulation.table(np.random.default_rng(0), 1_000, 5).astype(float)
    baseline = Baseline(features=build_baseline_columns(table.to_numpy()))
    counter = Counter(baseline)
    counter.add_features(table.to_numpy())
    assert counter.list_column_counts() == {
        str(at): [*column.counts, 0, 0, 0] for at, column in enumerate(baseline.features)
    }


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
        bin_table = build_bin_table(column.low, column.keys, slots.first[column.name])
        expected += np.bincount(bin_table[encode_bins(live[:, at], column.center)], minlength=len(expected))
    assert slots.counts.tolist() == expected.tolist()


def test_above_the_limit_a_weighted_part_of_the_rows_is_counted() -> None:
    limit, counts, seen = CountLimit(Random(0)), Counts(version="1", since=0, until=1), []
    begins: dict[int, int] = {}
    for turn in range(8_000):  # 50,000 rows a second; the first 8,000 are the allowance of a quiet time
        places, weight = limit.draw_rows(7, 32, 64, 1_000 + turn * 32 / 50_000)
        drawn = range(32) if places is None else places
        assert list(drawn) == sorted(set(drawn) & set(range(32)))
        counts.add_rows(32, [(len(drawn), weight)])
        seen += [(weight, turn * 32 + at) for at in drawn]
        begins.setdefault(weight, turn * 32)
    assert [weight for weight, _ in seen[:8_000]] == [1] * 8_000
    assert {weight for weight, at in seen if at > 50_016} == {64}, "the rate is known after a second"
    assert len(seen) < 16_000
    first, late = begins[64], [at for weight, at in seen if weight == 64]
    assert abs(len(late) * 64 - (256_000 - first)) < 128, "one row of each run of 64"
    assert len(np.unique([(at - first) // 64 for at in late])) > 0.9 * len(late)
    assert len({at % 32 for at in late}) == 32, "clients that take turns are drawn alike"
    assert counts.rows * counts.effective_share < 1.01 * len(seen) * counts.rows / 256_000
    whole = Counts(version="1", since=0, until=1, rows=1_000)
    whole.add(counts)
    assert (whole.rows, whole.squares) == (257_000, counts.squares + 1_000)


def test_a_run_of_rows_continues_in_the_next_batch_of_its_model() -> None:
    limit, drawn = CountLimit(Random(0)), {1: 0, 2: 0}
    limit.draw_rows(1, 100, 100_000, 1_000.0)
    for _ in range(20_000):
        for model in drawn:
            places, weight = limit.draw_rows(model, 3, 1, 1_000.5)
            assert places is not None
            drawn[model] += len(places) * weight
    assert all(abs(rows - 60_000) <= MOST for rows in drawn.values())


def test_a_part_of_the_rows_raises_no_other_alarms_than_all_of_them() -> None:
    random = np.random.default_rng(0)
    baseline = Baseline(features=build_baseline_columns(simulation.rarely_missing(random, 20_000)))
    for change, alarms in ((lambda live, random: live, 0), (simulation.with_missing(0.05), 10)):
        alarm_count = 0
        for _ in range(10):
            counter, rows = Counter(baseline), change(simulation.rarely_missing(random, 400), random)
            counter.add_features(rows, 30)
            counts = Counts(version="1", since=0, until=1, columns=counter.list_column_counts())
            counts.add_rows(12_000, [(400, 30)])
            alarm_count += bool(find_drifted_columns(baseline, counts, Drift()))
        assert alarm_count >= alarms if alarms else alarm_count == 0


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
    findings = list(simulation.windows(150, rows))
    assert simulation.share(iter(findings)) <= 0.002
    assert simulation.persistent(iter(findings)) == 0


def test_a_small_shift_of_one_of_twenty_columns_is_seen() -> None:
    normal = {"kinds": ("normal",)}
    assert simulation.share(simulation.windows(100, 1_000, simulation.shift_first_column(0.25), **normal)) >= 0.95
    assert simulation.share(simulation.windows(100, 300, simulation.shift_first_column(0.5), **normal)) >= 0.99
    assert simulation.share(simulation.windows(4, 50_000, simulation.shift_first_column(0.1), **normal)) == 0


def test_categories_missing_and_new_values_are_seen() -> None:
    assert simulation.share(simulation.windows(150, 300, simulation.more_black, make=simulation.categories)) >= 0.95
    missing = list(simulation.windows(60, 500, simulation.with_missing(0.05), make=simulation.rarely_missing))
    assert simulation.share(iter(missing)) >= 0.95
    assert {finding.kind for findings in missing for finding in findings} == {"missing"}
    new = list(simulation.windows(60, 300, simulation.new_color, make=simulation.categories))
    assert np.mean([any(one.kind == "new_value" for one in findings) for findings in new]) >= 0.95


def test_a_fall_of_quality_is_seen_and_chance_is_not() -> None:
    assert simulation.quality(0.91) >= 0.95
    assert [simulation.quality(0.96, count=20_000, seed=seed) for seed in (1, 2)] == [0, 0]


def test_refusals_of_a_field_are_seen_also_without_a_row_that_was_answered() -> None:
    (finding,) = find_drifted_columns(
        Baseline(), Counts(version="1", since=0, until=1, refused=400, fields={"age": 400}), Drift()
    )
    assert (finding.kind, finding.column, finding.value) == ("refused", "age", 1.0)
    few = Counts(version="1", since=0, until=1, rows=5_000, refused=4, fields={"age": 4})
    assert not find_drifted_columns(Baseline(), few, Drift())


def test_a_value_out_of_the_range_of_training_is_seen() -> None:
    table = pd.DataFrame({"age": np.random.default_rng(0).integers(18, 80, 5_000)})
    baseline = Baseline(features=build_baseline_columns(table))
    live = table.head(400).assign(age=lambda rows: rows["age"].where(rows.index > 20, 900))
    findings = find_drifted_columns(baseline, count_rows(baseline, live), Drift())
    assert ("out_of_range", "age") in {(finding.kind, finding.column) for finding in findings}


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


def hash_two_rows(ids: list[bytes]) -> np.ndarray:
    """The hashes of two rows of each request."""
    return hash_rows(np.repeat(hash_requests(ids), 2), np.tile([0, 1], len(ids)))


def test_replicas_sample_the_same_rows() -> None:
    hashes = hash_two_rows([b"request-%d" % at for at in range(20_000)])
    first, weight = Sampler(10.0).choose(hashes)
    second, _ = Sampler(10.0).choose(hashes)
    assert first.tolist() == second.tolist()
    assert 300 / 2 < len(first) <= 600
    assert len(first) * weight == pytest.approx(40_000, rel=0.2)
    more, _ = Sampler(20.0).choose(hashes)
    assert set(first.tolist()) <= set(more.tolist())


def test_a_sample_of_any_rate_is_of_the_rows_with_the_lowest_hashes() -> None:
    """Rows that cannot be kept are dropped before: the others are those that the sampler would keep of all."""
    sampler, kept, rows = Sampler(10.0), [], 0
    for rate in [*[50_000] * 20, *[500] * 5, *[0] * 5, *[50_000] * 5]:
        ids = [b"%d" % at for at in range(rows, rows + rate)]
        rows += rate
        bits, hashes = sampler.limit_bits, hash_requests(ids)
        possible = find_rows_below(hashes, [1] * rate, bits) if ids else []
        sampler.pass_time(1.0)
        if possible:
            places, weight = sampler.choose(hashes[possible], bits)
            chosen = np.array(possible)[places]
            assert chosen.tolist() == np.flatnonzero(hashes < 2**32 / weight).tolist() or not len(chosen)
            kept.append((len(possible), len(chosen), weight))
        else:
            kept.append((0, 0, 0.0))
    assert kept[0][0] == 50_000, "nothing is known of the rate yet"
    assert all(possible < 400 for possible, *_ in kept[3:20])
    assert sum(chosen for _, chosen, _ in kept[:20]) <= 600 + 10 * 20
    assert sum(chosen for _, chosen, _ in kept[5:20]) == pytest.approx(150, rel=0.35)
    assert sum(chosen for _, chosen, _ in kept[21:25]) > 20, "it follows a rate that falls"
    assert kept[30][0] == 50_000, "after a quiet time all may be kept again"


def test_the_hash_of_a_row_is_that_of_its_id_alone() -> None:
    ids = [b"a", b"a\nb", b"0123456789abcdef" * 2, b"\xff" * 9, b"z" * 64, b"a" * 7, b"a" * 8, b"a" * 9, b"z" * 63]
    together = hash_two_rows(ids).tolist()
    assert together == [one for each in ids for one in hash_two_rows([each]).tolist()]
    assert len(set(together)) == 2 * len(ids)
    assert hash_requests([b"same-length-1", b"same-length-2"]).tolist() == [
        hash_requests([b"same-length-1", b"another"]).tolist()[0],
        hash_requests([b"x", b"same-length-2"]).tolist()[1],
    ]


@pytest.mark.parametrize("name", ["%d", "request-%012d", "%032x", "user-%d-session-abc"])
def test_hashes_of_ids_that_count_are_uniform(name: str) -> None:
    hashes = hash_requests([(name % number).encode() for number in range(50_000)])
    for bits in (31, 28, 24):
        expected = 50_000 * 2.0 ** (bits - 32)
        assert abs((hashes < 2**bits).sum() - expected) < 4 * expected**0.5
    gaps = np.diff(np.flatnonzero(hashes < 2**26))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.15), "they come at random, not at intervals"


def test_the_statistics_are_those_of_the_books() -> None:
    # Values by scipy.stats: kstwobign.sf(1.36), binom.sf(44, 300, 0.05), jensenshannon([.05, .95], [.15, .85]).
    assert compute_ks_p(1.36 / (10_000 + 0.12), 2 * 10_000**2, 2 * 10_000**2) == pytest.approx(0.0494, abs=2e-4)
    assert compute_binomial_tail(45, 300, 0.05) == pytest.approx(6.3688e-11, rel=1e-3)
    assert compute_js_distance(np.array([5, 95]), np.array([15, 85])) == pytest.approx(0.1203, abs=1e-4)
    assert select_discoveries([0.01, 0.03, 0.02, 0.9], 0.05) == [True, True, True, False]
