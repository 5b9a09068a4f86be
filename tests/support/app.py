"""The App as tests and benchmarks use it: its server, which leaves a log, and pages in headless Chromium."""

import contextlib
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.conftest import free_port

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LOGGED_ERROR = re.compile(r'Traceback \(most recent call last\)|"severity": "(ERROR|CRITICAL)"|\[(ERROR|CRITICAL)\]')
SECONDS_TO_CONNECT = 300
SECONDS_TO_ANSWER = 20

PATIENCE = 180_000
"""Milliseconds that a page may take for anything: busy cores are slow."""


@contextlib.contextmanager
def served_app(log: Path):
    """A session of the App, whose server writes to ``log`` what FiftyOne would throw away."""
    import fiftyone as fo
    from fiftyone.core.service import ServerService

    command, wait = ServerService.command.fget, ServerService._wait_for_child_port
    # FiftyOne takes a closed stream for the server's end, so the log is a copy of both.
    copied = ["bash", "-c", 'exec "$@" > >(tee -a "$0") 2> >(tee -a "$0" >&2)', str(log)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerService, "command", property(lambda service: copied + command(service)))
        # FiftyOne gives the server a minute to start, which busy cores may not suffice for.
        patch.setattr(
            ServerService, "_wait_for_child_port", lambda service, port=None: wait(service, port, SECONDS_TO_CONNECT)
        )
        patch.setenv("FIFTYONE_LOGGING_FORMAT", "json")  # with each message's severity
        session = fo.launch_app(remote=True, address="127.0.0.1", port=free_port(), auto=False)
    deadline = time.monotonic() + SECONDS_TO_CONNECT
    while not session._client._connected:  # setting session.view before that raises
        assert time.monotonic() < deadline, "the App's server could not be reached"
        time.sleep(0.2)
    yield session
    fo.close_app()


def logged_errors(log: str) -> list[str]:
    """The log from its first error on, if there is one."""
    found = LOGGED_ERROR.search(log)
    return [f"the App's server logged an error: …{log[max(0, found.start() - 500) :][:5000]}"] if found else []


def find_chromium() -> str | None:
    """Path of the browser; None where there is none."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@contextlib.contextmanager
def chromium(executable: str):
    """Headless Chromium; while it is open, Playwright's event loop blocks operators in this thread."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        playwright.selectors.set_test_id_attribute("data-cy")
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


def open_grid(browser, session, dataset, theme="dark", width=1500, height=900):
    """A fresh page that shows a dataset's grid, and collects errors of all pages of its context (:func:`watch`)."""
    import fiftyone as fo

    session.dataset = dataset  # what an earlier page left open lives in the server: view, selection, panels
    session.spaces = fo.Space(children=[fo.Panel(type="Samples", pinned=True)])
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(f"localStorage.setItem('mui-mode', '{theme}')")
    address = f"http://127.0.0.1:{session.server_port}"
    watch(context, address)
    context.route(
        "**/*",
        lambda route: (
            route.continue_()
            if route.request.url.startswith((address, "data:", "blob:"))
            else route.abort()  # fonts and statistics from the internet
        ),
    )
    return open_page(context, f"{address}/datasets/{dataset.name}")


def open_page(context, address):
    """A page of a context that shows the grid at an address of the App."""
    page = context.new_page()
    page.goto(address, wait_until="domcontentloaded")
    page.get_by_test_id("looker").first.wait_for()
    dismiss = page.get_by_text("Dismiss", exact=True)  # FiftyOne's advertisement covers a corner of the panels
    page.add_locator_handler(dismiss, lambda: dismiss.first.click(), no_wait_after=True)
    return page


def watch(context, address):
    """Collect in a context the errors of its pages, the answers to their operations, and what is not answered yet."""
    context.errors, context.operations, context.pending = [], [], set()

    def note(text, url):
        if url.startswith(address) and text != "entry is loading":  # that one is FiftyOne's own
            context.errors.append(text)

    def look_at(answer):
        if answer.status >= 500:
            note(f"{answer.status} {answer.url}", answer.url)
        if "/operators/execute" in answer.url:
            context.operations.append(answer)

    context.on("weberror", lambda error: note(str(error.error), error.page.url))  # not of the blank page before
    context.on("console", lambda said: note(said.text, said.location["url"]) if said.type == "error" else None)
    context.on("response", look_at)
    context.on("request", lambda asked: asked.url.startswith(address) and context.pending.add(asked))
    for answered in ("requestfinished", "requestfailed"):
        context.on(answered, lambda asked: context.pending.discard(asked))


def wait_for_answers(context) -> None:
    """Wait until the server has answered all pages, lest it meets closed doors; its stream of events never ends.

    Not for long: the browser says nothing of the end of some requests, such as those of a page that was left.
    """
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while any(not asked.url.endswith("/events") for asked in context.pending) and time.monotonic() < deadline:
        context.pages[0].wait_for_timeout(100)


def failed_operations(context) -> list[str]:
    """The errors of the pages' operators and panels, which FiftyOne sends to the page and does not log."""
    errors = []
    for answer in context.operations:
        with contextlib.suppress(Exception):  # a page that was left keeps no bodies; a stream has no JSON
            errors.append(answer.json().get("error"))
    return [error for error in errors if error]
