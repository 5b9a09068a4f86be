"""The main job in the App: from the opened dataset, by the operator's form, to the sorted pairs with their scores."""

import fiftyone.operators.delegated as food
import pytest
from playwright.sync_api import expect

from tests.support.form import OperatorForm, done, placed_button
from tests.support.panel import PanelPage
from tests.support.planted import PLANTED, plant_errors


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_computing_influence_from_its_form_shows_the_wrong_captions_first(open_page, pair_dataset, pictures, theme):
    plant_errors(pair_dataset)
    pair_dataset.name = f"coloured-shapes-{theme}"
    page = open_page(pair_dataset, theme=theme, width=1280, height=800)

    form = OperatorForm(page, "ECIF: compute influence")
    form.choose_radio("Embeddings stored in fields")
    form.fill("Run key", "not a name")
    expect(form.dialog.get_by_text("Run key 'not a name' cannot be used")).to_be_visible()
    expect(form.button("Compute")).to_be_disabled()
    form.fill("Run key", "ecif")
    expect(form.button("Compute")).to_be_enabled()
    page.screenshot(path=pictures / f"compute-{theme}.png")
    form.dialog.get_by_text("to score 60 pairs").scroll_into_view_if_needed()
    page.screenshot(path=pictures / f"compute-{theme}-below.png")
    form.button("Compute").click()

    output = page.get_by_test_id("operators-prompt-view-modal")
    expect(output.get_by_text("Scored 60 pairs")).to_be_visible()
    expect(page.get_by_text("ECIF scored 60 pairs")).to_be_visible()
    done(page)

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


# A click on a label makes another one on its input: what a hand does is press.
COUNT_CLICKS = """window.clicks = 0; window.addEventListener('pointerdown', event => {
    const pressed = event.target.closest('button') || event.target
    if (event.isTrusted && pressed.textContent.trim() != 'Dismiss') window.clicks += 1  // FiftyOne's advertisement
}, true)"""


def test_from_the_opened_dataset_to_the_first_corrected_caption_in_six_clicks_and_one_form(open_page, pair_dataset):
    plant_errors(pair_dataset)
    page = open_page(pair_dataset, width=1280, height=800)
    captions = pair_dataset.values("caption")
    page.evaluate(COUNT_CLICKS)
    placed_button(page, "compute").click()
    form = OperatorForm(page, None)
    form.choose_radio("Embeddings stored in fields")  # not needed with a model
    form.button("Compute").click()
    done(page)
    panel = PanelPage(page, is_open=True)
    panel.tab("Review")
    panel.button("Accept").click()
    expect(panel.content.get_by_text("of 59 pairs to review")).to_be_visible()
    assert page.evaluate("window.clicks") <= 6
    pair_dataset.reload()
    (fixed,) = pair_dataset.exists("caption_fixes")
    assert sum(before != after for before, after in zip(captions, pair_dataset.values("caption"))) == 1
    chip = page.locator(f'[data-cy="tag-caption"][title="caption: {fixed.caption}"]').first
    expect(chip).to_be_visible()  # the grid shows it


def test_a_run_is_left_to_a_worker(open_page, pair_dataset, in_thread):
    plant_errors(pair_dataset)
    page = open_page(pair_dataset, width=1280, height=800)
    form = OperatorForm(page, "ECIF: compute influence")
    form.choose_radio("Embeddings stored in fields")
    form.fill("Run key", "later")
    form.dialog.locator('[aria-label="split button"] button').nth(1).click()
    page.get_by_role("menuitem", name="Schedule").click()
    form.settle()
    form.button("Schedule").click()
    expect(form.dialog).to_have_count(0)
    in_thread(food.DelegatedOperationService().execute_queued_operations, dataset_name=pair_dataset.name)
    pair_dataset.reload()
    assert pair_dataset.list_runs() == ["later"]
    page.reload()
    panel = PanelPage(page)
    expect(panel.content.get_by_text("scored pairs in view")).to_be_visible()
