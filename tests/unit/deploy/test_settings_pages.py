"""The pages of the platforms' settings are what the settings say."""

from __future__ import annotations

from scripts.platform_settings import make_pages


def test_the_pages_are_current():
    for path, text in make_pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `make reference`"
