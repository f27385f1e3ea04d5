"""The page that the evaluation has in Flyte's console."""

from __future__ import annotations

from mlapp.flyte import deck


def test_it_shows_the_metrics_of_each_split_and_takes_no_markup() -> None:
    page = deck.render_metrics_deck("<digits>", {"train": {"accuracy": 1.0, "f1": 0.99951}, "test": {"accuracy": 0.5}})
    assert "<h2>&lt;digits&gt;</h2>" in page
    assert "<th>split</th><th>accuracy</th><th>f1</th>" in page
    assert "<td>train</td><td>1</td><td>0.9995</td>" in page
    assert "<td>test</td><td>0.5</td><td></td>" in page
