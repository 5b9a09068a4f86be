"""Shift risk in the App: computed from its form, seen in its tab, and led back to the grid."""

import pytest
from PIL import Image
from playwright.sync_api import expect

import fiftyone_ecif as ecif
from tests.support.panel import PanelPage
from tests.support.shifted import FIELDS, shifted_samples

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def dataset(tmp_path):
    """Samples whose images differ as their vectors do: orange ones are shifted."""
    dataset = shifted_samples(tmp_path)
    for path, shifted in zip(*dataset.values(["filepath", "shifted"]), strict=True):
        Image.new("RGB", (48, 48), "orange" if shifted else "steelblue").save(path)
    return dataset


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_scenarios_are_ranked_and_lead_to_the_samples_that_carry_the_shift(open_page, dataset, pictures, theme):
    tags = {tag: dataset.match_tags(tag) for tag in ("mild", "strong")}
    clean = dataset.match_tags("clean")
    results = ecif.compute_shift(clean, tags, embeddings=FIELDS, resamples=50, progress=False)
    page = open_page(dataset, theme, 1280, 800)
    panel = PanelPage(page)
    expect(panel.content.get_by_text("differ from")).to_be_visible()
    panel.picture(pictures, f"panel-shift-{theme}")
    panel.button("Show in the grid").click()
    expect(page.get_by_test_id("entry-counts")).to_have_text("60 samples")
    panel.picture(pictures, f"panel-shift-grid-{theme}")
    assert results.most_shifted("image", "strong", limit=5).values("shifted") == [True] * 5


def test_a_shift_is_computed_from_the_app(open_page, dataset):
    page = open_page(dataset, width=1280, height=1000)
    panel = PanelPage(page)
    panel.button("Compute shift risk").click()
    expect(page.get_by_text("reference samples against")).to_be_visible()
    page.get_by_label("Embeddings stored in fields").check()
    expect(page.get_by_text("Embeddings of the images")).to_be_visible()
    page.get_by_role("button", name="Compute", exact=True).click()
    expect(page.get_by_text("Compared 1 set of samples with the reference")).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel.content.get_by_text("differ from")).to_be_visible()
    assert [each.count for each in ecif.load_shift(dataset, "shift").scenarios] == [120]
