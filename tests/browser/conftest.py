"""The FiftyOne App, served to headless Chromium. A test fails on any error of its pages or of the App's server."""

import concurrent.futures
import os
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.app import (
    chromium,
    failed_operations,
    find_chromium,
    logged_errors,
    open_grid,
    served_app,
    wait_for_answers,
)
from tests.support.scored import scored_dataset, scored_once  # noqa: F401

SHOTS = REPOSITORY / "shots"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser():
    """Headless Chromium; without one the test is skipped, but fails in CI."""
    executable = find_chromium()
    if executable is None:
        message = "no Chromium found; on Debian: apt-get install chromium fonts-dejavu-core"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with chromium(executable) as browser:
        yield browser


@pytest.fixture(scope="session")
def server_log(tmp_path_factory):
    """Where the App's server writes its log."""
    return tmp_path_factory.mktemp("app") / "server.log"


@pytest.fixture(scope="session")
def session(server_log):
    """The App's server, ready for pages and for changes made through the session."""
    with served_app(server_log) as session:
        yield session


@pytest.fixture
def open_page(browser, session, server_log, request):
    """``open_page(dataset, theme="dark", width=1500, height=900)``: a fresh page that shows the dataset's grid.

    When the test ends, a picture of every page is left in ``shots/``, named after the test. The test fails if a page
    met an error (of a script, in the browser's console, of an operator), or if the server logged one.
    """
    request.node.pages, request.node.log, request.node.log_start = [], server_log, server_log.stat().st_size

    def open_page(dataset, *args, **kwargs):
        page = open_grid(browser, session, dataset, *args, **kwargs)
        request.node.pages.append(page)
        return page

    return open_page


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    """Look at a test's pages while they are open, and at what the server logged meanwhile."""
    errors = []
    for number, page in enumerate(getattr(item, "pages", [])):
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"{item.name}{f'-{number}' if number else ''}.png")
        wait_for_answers(page.context)
        errors += page.context.errors + failed_operations(page.context)
        page.context.close()
    if hasattr(item, "log"):
        errors += logged_errors(item.log.read_bytes()[item.log_start :].decode(errors="replace"))
    result = yield
    assert errors == [], "\n".join(map(str, errors))
    return result


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
