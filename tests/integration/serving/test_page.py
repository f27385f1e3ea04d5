"""The page at `/`, in a real browser that can reach only the server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser import needs_browser, open_browser

pytestmark = [pytest.mark.xdist_group("browser"), needs_browser]


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: BrowserContext, server) -> Iterator[Page]:
    """The page of the shared server, just opened. A request to anywhere else is an error."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []


def test_it_shows_the_model_and_predicts_what_the_form_says(page: Page) -> None:
    expect(page.locator("#name")).to_have_text("sums")
    expect(page.locator("#version")).to_have_text("version 1")
    expect(page.locator("#parameters")).to_contain_text("factor")
    page.get_by_label("a", exact=True).fill("40")
    page.get_by_label("b", exact=True).fill("2")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .answer")).to_have_text("42")


def test_the_command_that_it_shows_gives_the_same_prediction(page: Page) -> None:
    page.get_by_label("a", exact=True).fill("1.5")
    page.get_by_label("b", exact=True).fill("-0.5")
    command = page.locator("#curl").inner_text()
    answer = json.loads(subprocess.check_output(["sh", "-c", command], stderr=subprocess.DEVNULL))
    assert answer == {"predictions": [1.0], "model": "sums", "version": "1"}


def test_errors_are_shown_beside_the_form(page: Page) -> None:
    page.get_by_label("a", exact=True).fill("")
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .bad")).to_contain_text("'a'")
    page.get_by_role("button", name="Example").click()
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer .answer")).to_be_visible()


def test_inputs_may_be_edited_as_json(page: Page) -> None:
    page.get_by_role("button", name="Edit as JSON").click()
    page.get_by_label("Inputs as JSON").fill('{"inputs": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]}')
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer pre")).to_contain_text("predictions")
    assert json.loads(page.locator("#answer pre").inner_text())["predictions"] == [2, 4]


def test_the_docs_need_nothing_from_elsewhere_and_try_a_route(page: Page, server) -> None:
    page.goto(f"{server.url}/docs")
    expect(page.get_by_text("/predict", exact=True)).to_be_visible()
    page.locator("#operations-sums-predict_sums button[aria-label^=post]").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"predictions"')
