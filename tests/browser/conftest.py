"""The FiftyOne App, served to headless Chromium."""

import concurrent.futures
import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, free_port
from tests.scored import scored_dataset, scored_once  # noqa: F401

SHOTS = REPOSITORY / "shots"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")  # while it is open, Playwright's event loop blocks operators in this thread
def browser():
    """Headless Chromium; without one the test is skipped, but fails in CI."""
    from playwright.sync_api import expect, sync_playwright

    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        message = "no Chromium found; on Debian: apt-get install chromium fonts-dejavu-core"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    expect.set_options(timeout=60_000)  # two busy cores are slow
    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def session():
    """The App's server, ready for pages and for changes made through the session."""
    import fiftyone as fo

    session = fo.launch_app(remote=True, address="127.0.0.1", port=free_port(), auto=False)
    deadline = time.monotonic() + 60
    while not session._client._connected:  # setting session.view before that raises
        assert time.monotonic() < deadline, "the App's server did not start within 60 seconds"
        time.sleep(0.2)
    yield session
    fo.close_app()


@pytest.fixture
def open_page(browser, session, request):
    """``open_page(dataset, theme="dark", width=1500, height=900)``: a fresh page that shows the dataset's grid.

    When the test ends, a picture of every page is left in ``shots/``, named after the test. The test fails if a page
    met an error: of a script, in the browser's console, of an operator, or of the server, whose log is not kept.
    """
    import fiftyone as fo

    pages = []

    def open_page(dataset, theme="dark", width=1500, height=900):
        session.dataset = dataset  # what an earlier test left open lives in the server: view, selection, panels
        session.spaces = fo.Space(children=[fo.Panel(type="Samples", pinned=True)])
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        context.add_init_script(f"localStorage.setItem('mui-mode', '{theme}')")
        page = context.new_page()
        page.set_default_timeout(60_000)
        address = f"http://127.0.0.1:{session.server_port}"
        watch(page, address)
        page.route(
            "**/*",
            lambda route: (
                route.continue_()
                if route.request.url.startswith((address, "data:", "blob:"))
                else route.abort()  # fonts and statistics from the internet
            ),
        )
        page.goto(f"{address}/datasets/{dataset.name}", wait_until="domcontentloaded")
        page.get_by_test_id("looker").first.wait_for(timeout=60_000)
        dismiss = page.get_by_text("Dismiss", exact=True)  # FiftyOne's advertisement covers a corner of the panels
        page.add_locator_handler(dismiss, lambda: dismiss.first.click(), no_wait_after=True)
        pages.append(page)
        return page

    request.node.pages = pages
    yield open_page
    for page in pages:
        page.context.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Look at a test's pages before what they show is deleted."""
    errors = []
    for number, page in enumerate(getattr(item, "pages", [])):
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"{item.name}{f'-{number}' if number else ''}.png")
        errors += page.errors + failed_operations(page)
    result = yield
    assert errors == [], "\n".join(map(str, errors))
    return result


def watch(page, address):
    """Collect a page's errors in ``page.errors``, and the answers to its operations in ``page.operations``."""
    page.errors, page.operations = [], []

    def note(text, url=address):
        if url.startswith(address) and text != "entry is loading":  # that one is FiftyOne's own
            page.errors.append(text)

    def look_at(answer):
        if answer.status >= 500:
            note(f"{answer.status} {answer.url}", answer.url)
        if "/operators/execute" in answer.url:
            page.operations.append(answer)

    page.on("pageerror", lambda error: note(str(error)))
    page.on("console", lambda said: note(said.text, said.location["url"]) if said.type == "error" else None)
    page.on("response", look_at)


def failed_operations(page):
    """The errors of a page's operators and panels, which FiftyOne sends to the page and does not log."""
    errors = []
    for answer in page.operations:
        with contextlib.suppress(Exception):  # a page that was left keeps no bodies; a stream has no JSON
            errors.append(answer.json().get("error"))
    return [error for error in errors if error]


@pytest.fixture
def in_thread():
    """``in_thread(function, *args, **kwargs)``: calls it in a thread of its own and returns its result.

    Playwright keeps an event loop running in the test's thread, in which FiftyOne's operators would return an
    unfinished task instead of a result.
    """

    def in_thread(function, *args, **kwargs):
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()

    return in_thread


@pytest.fixture
def pictures(tmp_path):
    """Where pictures are left: in the folder that the environment variable ECIF_SCREENSHOTS names."""
    folder = Path(os.environ.get("ECIF_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
