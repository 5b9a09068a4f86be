"""What a run finds beside misalignment, in the App: recurring errors, wrong words, captions that say little."""

import fiftyone as fo
import pytest
from playwright.sync_api import expect

from tests.support.panel import PanelPage


@pytest.fixture
def dataset(scored_dataset):
    """The run's findings as SDK and operators write them."""
    scored_dataset.add_sample_field("first_error_slice", fo.StringField)
    scored_dataset.add_sample_field("first_wrong_words", fo.ListField, subfield=fo.StringField)
    suspects = scored_dataset.sort_by("first_misalignment", reverse=True)[:6]
    suspects.set_values("first_error_slice", ["captions with <b>“a photo”</b>"] * 6)
    suspects.set_values("first_wrong_words", [[caption.split()[-1]] for caption in suspects.values("caption")])
    return scored_dataset


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_recurring_errors_are_listed_and_shown_and_wrong_words_are_marked(open_page, dataset, pictures, theme):
    page = open_page(dataset, theme, 1280, 800)
    panel = PanelPage(page)
    panel.tab("Slices")
    expect(panel.content.get_by_text("captions with <b>“a photo”</b>")).to_be_visible()
    panel.picture(pictures, f"panel-slices-{theme}")
    panel.content.get_by_role("button", name="Show", exact=True).first.click()
    expect(page.get_by_test_id("entry-counts")).to_have_text("6 samples")
    panel.tab("Review")
    expect(panel.content.locator("strong").first).to_be_visible()
    panel.picture(pictures, f"panel-words-{theme}")
    panel.tab("Suspects")
    panel.button("Show what says little").click()
    expect(panel.button("Clear selection")).to_be_enabled()
    expect(panel.content.get_by_role("tab", name="Suspects")).to_have_attribute("aria-selected", "true")
    panel.picture(pictures, f"panel-vague-{theme}")
