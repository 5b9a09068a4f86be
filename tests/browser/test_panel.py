"""The story in the App: a run's pictures, a selection on them, a caption repaired from its card and put back."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.form import OperatorForm


@pytest.fixture
def pictures(tmp_path):
    """Where pictures are left: in the folder that the environment variable ECIF_SCREENSHOTS names."""
    folder = Path(os.environ.get("ECIF_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class PanelPage:
    """The panel, opened beside the grid."""

    def __init__(self, page: Page):
        self.page = page
        page.get_by_test_id("new-panel-btn").first.click()
        page.get_by_test_id("new-panel-option-ecif_panel").click()
        self.content = page.get_by_test_id("panel-content-ecif_panel")
        expect(self.content).to_be_visible()

    def tab(self, name: str) -> None:
        self.content.get_by_role("tab", name=name).click()

    def button(self, name: str):
        return self.content.get_by_role("button", name=name, exact=True).first

    def drag(self, start: float, end: float) -> None:
        """Drag over the first plot between two shares of its width."""
        box = self.content.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        y, mouse = box["y"] + box["height"] / 2, self.page.mouse
        mouse.move(box["x"] + start * box["width"], y)
        mouse.down()
        for step in range(1, 9):
            mouse.move(box["x"] + (start + (end - start) * step / 8) * box["width"], y - 3 * step)
        mouse.up()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_from_the_histogram_to_a_repaired_caption_and_back(open_page, scored_dataset, pictures, theme):
    wide = theme == "light"
    page = open_page(scored_dataset, theme, *((1920, 1080) if wide else (1280, 800)))
    count = page.get_by_test_id("entry-counts")
    panel, before = PanelPage(page), scored_dataset.values("caption")
    expect(panel.content.locator(".js-plotly-plot g.point").first).to_be_visible(timeout=60_000)
    expect(panel.content.get_by_text("scored pairs in view")).to_be_visible()
    page.screenshot(path=pictures / f"panel-suspects-{theme}.png")

    suspects = len(scored_dataset.match({"first_misalignment": {"$gte": 0.5}}))
    panel.drag(0.51, 0.995)
    expect(count).to_have_text(f"{suspects} samples")
    panel.button("Clear selection").click()
    expect(count).to_have_text("60 samples")
    expect(panel.button("Clear selection")).to_have_count(0)

    panel.tab("Review")
    expect(panel.content.get_by_text("of 60 pairs to review")).to_be_visible()
    accept = panel.button("Accept")
    expect(accept).to_be_visible()
    page.screenshot(path=pictures / f"panel-review-{theme}.png")
    accept.click()
    expect(panel.content.get_by_text("of 59 pairs to review")).to_be_visible()
    scored_dataset.reload()
    (fixed,) = scored_dataset.exists("caption_fixes")
    assert fixed.caption == fixed["first_suggestion"].label
    panel.button("Undo last fix (1)").click()
    expect(panel.content.get_by_text("of 60 pairs to review")).to_be_visible()
    assert before == scored_dataset.values("caption")

    panel.tab("Influence")
    expect(panel.content.get_by_text("What if")).to_be_visible()
    panel.tab("Health")
    expect(panel.content.get_by_text("cg_relative_residual")).to_be_visible()
    page.screenshot(path=pictures / f"panel-health-{theme}.png")
    assert [error for error in page.errors if error != "entry is loading"] == []  # that one is FiftyOne's own


def test_selected_samples_are_repaired_from_the_form(open_page, scored_dataset, pictures):
    page = open_page(scored_dataset, width=1280, height=800)
    form = OperatorForm(page, "ECIF: review and apply suggestions")
    expect(form.dialog.get_by_text("samples will change")).to_be_visible()
    page.screenshot(path=pictures / "apply-dark.png")
    form.fill("Least confidence", "2")
    expect(form.dialog.get_by_text("A confidence lies between 0 and 1.")).to_be_visible()
    expect(form.button("Apply")).to_be_disabled()
    form.fill("Least confidence", "0")
    form.button("Apply").click()
    expect(page.get_by_text("Suggestions:")).to_be_visible()
    scored_dataset.reload()
    assert scored_dataset.exists("caption_fixes").count() == scored_dataset.count("first_suggestion.label")


def test_a_run_is_cancelled_from_the_panel_of_another_page(open_page, scored_dataset):
    page = open_page(scored_dataset, width=1280, height=800)
    form = OperatorForm(page, "ECIF: compute influence")
    form.choose_radio("Embeddings stored in fields")
    form.fill("Run key", "long")
    form.dialog.locator(".MuiSwitch-root").first.click()
    form.settle()
    form.fill("Rounds", "2000")
    form.button("Compute").click()
    output = page.get_by_test_id("operators-prompt-view-modal")
    expect(output.get_by_text(" of ")).to_be_visible(timeout=60_000)

    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_test_id("looker").first.wait_for(timeout=60_000)
    panel = PanelPage(other)
    panel.button("Cancel").click(timeout=60_000)
    expect(output.get_by_text("Nothing was changed.")).to_be_visible(timeout=60_000)
    scored_dataset.reload()
    assert scored_dataset.list_runs() == ["first"]
    assert not scored_dataset.has_field("long_value")
