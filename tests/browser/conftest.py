"""A server with toy people, started as on the command line, and a browser."""

import shutil
import socket
import threading
import warnings
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from app.web.__main__ import serve
from irra.search.engine import SearchEngine
from tests.browser import toy

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "NO BROWSER TEST RUNS: chromium is not installed (on Debian: apt-get install chromium)"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SearchEngine:
    folder = tmp_path_factory.mktemp("toy")
    store = toy.write_people(folder / "prepared")
    return toy.toy_engine(folder / "engine", toy.train(store), store)


@pytest.fixture(scope="module")
def address(engine: SearchEngine) -> str:
    """The address of the running server, which ends with this process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    index = engine.gallery.folder
    arguments = (str(index.parent / "model"), index, "127.0.0.1", port)
    threading.Thread(target=serve, args=arguments, daemon=True).start()
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, closed after each module: while it is open, no other test can run an event loop in this thread."""
    if CHROMIUM is None:
        warnings.warn(NO_CHROMIUM, stacklevel=1)
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh page; afterwards, checks that it had no errors and sent requests only to the server."""
    with browser.new_context(base_url=address, viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        hosts: set[str] = set()
        problems: list[str] = []
        context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda message: note(message, problems))
        yield page
        assert problems == []
        assert hosts == {urlsplit(address).netloc}


def note(message: ConsoleMessage, problems: list[str]) -> None:
    """Collect error messages, except those of the browser about responses of status 400 and above."""
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        problems.append(message.text)
