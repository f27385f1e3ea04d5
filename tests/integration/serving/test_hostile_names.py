"""Names and values that are HTML: both pages of a server show them as text, in a real browser."""

from __future__ import annotations

import asyncio
import html
import socket
import threading
from collections.abc import Iterator

import httpx
import pandas as pd
import pytest
import uvicorn
from playwright.sync_api import expect

from mlapp import App
from mlapp.config import Monitor, Serve
from mlapp.serving import create_asgi
from mlapp.serving.monitoring import monitor_endpoint
from mlapp.serving.process.server import configure_uvicorn
from tests.browser import needs_browser, open_browser

from .conftest import until

SCRIPT = "<img src=x onerror=alert(1)><script>alert(2)</script>"
pytestmark = [pytest.mark.xdist_group("browser"), needs_browser]


class Echo:
    """Predicts a text that is HTML."""

    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return [SCRIPT] * len(features)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = App("names", target="y")
    colors = pd.Categorical([SCRIPT, "</title><script>alert(3)</script>"] * 20)
    table = pd.DataFrame({SCRIPT: range(40), "'\"><svg onload=alert(4)>": colors, "y": [SCRIPT, "b"] * 20})
    app.data_reader(lambda: table)
    app.model(Echo)
    settings = Serve(access_log=False)
    application = create_asgi(app, model=app.train(), settings=settings)
    monitor_endpoint(application, application.endpoints[0], Monitor(log="off"), None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configure_uvicorn(application, settings))

    async def main() -> None:
        await application.start_models()
        await server.serve(sockets=[listener])
        await application.close_models()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_no_name_and_no_value_is_markup(url: str) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(url)
        expect(page.locator("#name")).to_have_text("names")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text(SCRIPT)
        until(lambda: html.escape(SCRIPT) in httpx.get(f"{url}/monitor").text)
        page.goto(f"{url}/monitor")
        expect(page.locator("body")).to_contain_text(SCRIPT)
        for place in ("img", "script:not([src])", "svg[onload]"):
            assert page.locator(f"{place}:has-text('alert')").count() == 0
        assert dialogs == []
