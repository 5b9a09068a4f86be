"""The pictures of README.md and docs/app.md: the App in headless Chromium, on drawings as people captioned them.

Run it with ``python -m scripts.pictures docs/images``. It starts a database of its own, and takes data and model from
the cache, as ``make demo DATA=openclipart`` does, which also says what is needed. The pairs are the demo's: 1,250
drawings of Openclipart, scored by two pretrained towers whose projections were trained on others. Captions of one in
twenty changed places at random, and two errors recur (``benchmarks/data/systematic.py``).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.data.pairs import PairTable
from benchmarks.data.systematic import ErrorKind, plant_errors
from tests.conftest import own_fiftyone
from tests.support.app import chromium, find_chromium, open_grid, served_app
from tests.support.form import OperatorForm, done
from tests.support.panel import PanelPage

WIDTH, HEIGHT = 1280, 800
COLORS = 128
ZOOM = 8  # of the grid's thumbnails, 0 to 10
CALM_MILLISECONDS = 3000  # until pictures, plots and messages have appeared or gone
TO_THE_TOP = """element => {
    let frame = element.parentElement
    while (frame && !/auto|scroll/.test(getComputedStyle(frame).overflowY)) frame = frame.parentElement
    frame.scrollTop += element.getBoundingClientRect().top - frame.getBoundingClientRect().top
}"""
"""Scrolls the panel alone: the browser's own way moves the page, too."""
MODEL, NAME, RUN_KEY = "lite0-minilm", "openclipart", "ecif"
TRAIN, HELDOUT = 1_250, 200
RECURRING: list[tuple[ErrorKind, int]] = [("exchanged words", 40), ("one caption", 20)]
ERROR_SEED = 0
BLAMED = 20
FIELDS = ("caption", f"{RUN_KEY}_misalignment", f"{RUN_KEY}_suggestion")
"""What thumbnails show, from below."""


def main() -> None:
    """Score the drawings, then take one picture after another."""
    folder, executable = Path(sys.argv[1]).resolve(), find_chromium()
    if executable is None:
        raise SystemExit("No Chromium was found; on Debian: apt-get install chromium fonts-dejavu-core")
    folder.mkdir(parents=True, exist_ok=True)
    with own_database() as root:
        unscored, dataset = drawings(root)
        try:
            with served_app(root / "server.log") as session, chromium(executable) as browser:
                Pictures(browser, session, folder).take(unscored, dataset)
        finally:
            dataset.delete_run(RUN_KEY)


@contextmanager
def own_database() -> Iterator[Path]:
    """A database that vanishes, beside the user's cache; yields a folder that vanishes with it."""
    cache = os.environ.get("FIFTYONE_ECIF_CACHE")
    root = own_fiftyone()
    del os.environ["FIFTYONE_ECIF_CACHE"]
    if cache is not None:
        os.environ["FIFTYONE_ECIF_CACHE"] = cache
    yield root


def drawings(root: Path) -> tuple[Any, Any]:
    """The pairs as they are given, and with a run that has been asked all that the panel shows.

    Args:
        root: a folder for the model, whose name the App shows
    """
    import fiftyone_ecif as ecif
    from benchmarks.models.lite0_minilm import lite0_minilm
    from examples import demo

    chosen = demo.DATA["openclipart"]
    table = chosen.load(seed=demo.SEED)
    model = root / MODEL
    model.symlink_to(lite0_minilm(table.select(np.arange(chosen.base))).removeprefix("local-dir:"))
    train, heldout = (np.flatnonzero(table.split == part) for part in ("train", "heldout"))
    rows = np.concatenate([train[chosen.base :][:TRAIN], heldout[:HELDOUT]])
    shown, planted = with_errors(table.select(rows))
    dataset = demo.make_dataset(shown, planted)
    dataset.name = NAME
    unscored = dataset.clone(f"{NAME}-unscored")
    results = ecif.compute_influence(
        dataset.match_tags("train"),
        "caption",
        target=dataset.match_tags("heldout"),
        run_key=RUN_KEY,
        model=f"local-dir:{model}",
    )
    print(results.error_slices())
    results.name_wrong_words()
    trace_one_query(dataset, results)
    return unscored, dataset


def with_errors(table: PairTable) -> tuple[PairTable, np.ndarray]:
    """The pairs with random and recurring errors in the training captions, and (N,) bool, which of them are wrong."""
    train = np.flatnonzero(table.split == "train")
    noisy = plant_errors(table.select(train), [table.categories[row] for row in train], RECURRING, ERROR_SEED)
    captions, planted = list(table.captions), np.zeros(len(table), dtype=bool)
    for row, caption in zip(train, noisy.table.captions):
        captions[row] = caption
    planted[train[np.concatenate([noisy.random, *(rows for _, rows in noisy.errors)])]] = True
    return table.with_captions(captions), planted


def trace_one_query(dataset: Any, results: Any) -> None:
    """Trace the held-out drawing that nearly finds its caption."""
    import fiftyone_ecif as ecif

    failing = ecif.find_failures(dataset.match_tags("heldout"), RUN_KEY).sort_by(f"{RUN_KEY}_margin", reverse=True)
    results.trace(failing.first(), k=BLAMED)


class Pictures:
    """Pages of the App, and pictures of them.

    Args:
        browser: Chromium
        session: of the App
        folder: where the pictures go
    """

    def __init__(self, browser: Any, session: Any, folder: Path) -> None:
        self.browser, self.session, self.folder = browser, session, folder

    def take(self, unscored: Any, dataset: Any) -> None:
        """Take all pictures; a fix is made and taken back."""
        import fiftyone_ecif as ecif

        suspects = ecif.load_results(dataset, RUN_KEY).misaligned()
        for story, theme, shown in (
            (self.suspects, "dark", suspects),
            (self.slices, "dark", suspects),
            (self.influence, "light", suspects),
            (self.trace, "light", suspects),
            (self.health, "dark", suspects),
            (self.review, "light", suspects),
            (self.compute, "dark", unscored.view()),
        ):
            with self.page(shown, theme) as page:
                story(page)

    @contextmanager
    def page(self, shown: Any, theme: str) -> Iterator[Page]:
        """A page of the App without its sidebar, which shows a view with captions and scores on the thumbnails."""
        import fiftyone as fo

        dataset = shown._dataset
        dataset.app_config.active_fields = fo.ActiveFields(paths=[*FIELDS])
        dataset.save()
        self.session.config.grid_zoom = ZOOM
        page = open_grid(self.browser, self.session, dataset, theme, WIDTH, HEIGHT)
        self.session.view = shown
        page.wait_for_timeout(CALM_MILLISECONDS)
        page.get_by_test_id("action-toggle-sidebar").click()
        yield page
        page.context.close()

    def save(self, page: Page, name: str) -> None:
        """Write what the page shows, in few colours."""
        page.mouse.move(0, 0)
        page.wait_for_timeout(CALM_MILLISECONDS)
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        image.quantize(COLORS, dither=Image.Dither.NONE).save(self.folder / f"{name}.png", optimize=True)

    def compute(self, page: Page) -> None:
        form = OperatorForm(page, "ECIF: compute influence")
        form.dialog.get_by_text("GB of memory").scroll_into_view_if_needed()
        self.save(page, "compute")

    def suspects(self, page: Page) -> None:
        panel = PanelPage(page)
        expect(panel.content.locator(".js-plotly-plot g.point").first).to_be_visible()
        self.save(page, "panel-suspects")
        panel.drag(0.51, 0.995)
        expect(panel.button("Clear selection")).to_be_enabled()
        self.save(page, "panel-selection")

    def review(self, page: Page) -> None:
        panel = self.panel(page, "Review", "pairs to review")
        cards = panel.content.get_by_text("pairs to review")
        cards.evaluate(TO_THE_TOP)
        self.save(page, "panel-review")
        panel.button("Accept").click()
        expect(panel.button("Undo last fix (1)")).to_be_visible()
        cards.evaluate(TO_THE_TOP)
        self.save(page, "panel-fixed")
        panel.button("Undo last fix (1)").click()
        expect(panel.button("Undo last fix (1)")).to_have_count(0)
        cards.evaluate(TO_THE_TOP)
        self.save(page, "panel-undone")

    def slices(self, page: Page) -> None:
        panel = self.panel(page, "Slices", "mean misalignment")
        panel.button("Show").click()
        expect(page.get_by_test_id("entry-counts")).not_to_have_text(f"{TRAIN} samples")
        self.save(page, "panel-slices")

    def influence(self, page: Page) -> None:
        panel = self.panel(page, "Influence", "What if")
        panel.button("Predict").click()
        OperatorForm(page, None).button("Predict").click()
        done(page)
        expect(panel.content.get_by_text("The target loss is predicted to go from")).to_be_visible()
        self.save(page, "panel-influence")

    def trace(self, page: Page) -> None:
        panel = self.panel(page, "Trace", "most to blame")
        panel.button("Show pairs").click()
        panel.button("Verify by refitting").click()
        OperatorForm(page, None).button("Refit").click()
        done(page)
        expect(panel.content.get_by_text("after refitting, it is")).to_be_visible()
        self.save(page, "panel-trace")

    def health(self, page: Page) -> None:
        self.panel(page, "Health", "two standard errors away from 0")
        self.save(page, "panel-health")

    def panel(self, page: Page, tab: str, text: str) -> PanelPage:
        """The panel at a tab, when it shows some text."""
        panel = PanelPage(page)
        panel.tab(tab)
        expect(panel.content.get_by_text(text).first).to_be_visible()
        return panel


if __name__ == "__main__":
    main()
