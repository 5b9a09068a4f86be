"""The main job in the App: from the opened dataset, by the operator's form, to the sorted pairs with their scores."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.form import OperatorForm
from tests.planted import PLANTED, plant_errors


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_computing_influence_from_its_form_shows_the_wrong_captions_first(open_page, pair_dataset, tmp_path, theme):
    """Leaves pictures in the folder that the environment variable ECIF_SCREENSHOTS names."""
    pictures = Path(os.environ.get("ECIF_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    plant_errors(pair_dataset)
    pair_dataset.name = f"coloured-shapes-{theme}"
    page = open_page(pair_dataset, theme=theme, width=1280, height=800)

    form = OperatorForm(page, "ECIF: compute influence")
    form.choose_radio("Embeddings stored in fields")
    form.fill("Run key", "not a name")
    expect(form.dialog.get_by_text("Run key 'not a name' cannot be used")).to_be_visible()
    expect(form.button("Compute")).to_be_disabled()
    form.fill("Run key", "ecif")
    page.screenshot(path=pictures / f"compute-{theme}.png")
    form.button("Compute").click()

    output = page.get_by_test_id("operators-prompt-view-modal")
    expect(output.get_by_text("Scored 60 pairs")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("ECIF scored 60 pairs")).to_be_visible()
    output.get_by_role("button", name="Done").click()
    expect(output).to_have_count(0)

    expect(page.get_by_test_id("entry-counts")).to_have_text("60 samples")
    expect(page.get_by_test_id("sidebar-field-ecif_misalignment")).to_be_visible()
    for chip in ("caption", "ecif_misalignment", "ecif_suggestion"):
        expect(page.get_by_test_id("looker").first.get_by_test_id(f"tag-{chip}")).to_be_visible()
    titles = page.get_by_test_id("tag-ecif_misalignment").evaluate_all("chips => chips.map(chip => chip.title)")
    shown = [float(title.partition(": ")[2]) for title in titles]
    pair_dataset.reload()
    scores = sorted(pair_dataset.values("ecif_misalignment"), reverse=True)
    assert shown == pytest.approx(scores[: len(shown)])
    page.get_by_text("ECIF scored 60 pairs").wait_for(state="hidden")
    page.mouse.move(0, 0)  # off the thumbnails
    page.screenshot(path=pictures / f"misaligned-{theme}.png")

    worst = pair_dataset.sort_by("ecif_misalignment", reverse=True).limit(len(PLANTED))
    assert worst.count_values("planted")[True] >= 0.8 * len(PLANTED)
    assert page.errors == []
