"""The story in the App: a run's pictures, a selection on them, a caption repaired from its card and put back."""

import pytest
from playwright.sync_api import expect

import fiftyone_ecif as ecif
from tests.support.app import open_page as open_page_at
from tests.support.form import OperatorForm, done, placed_button
from tests.support.panel import PanelPage


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_from_the_histogram_to_a_repaired_caption_and_back(open_page, scored_dataset, pictures, theme):
    wide = theme == "light"
    page = open_page(scored_dataset, theme, *((1920, 1080) if wide else (1280, 800)))
    count = page.get_by_test_id("entry-counts")
    panel, before = PanelPage(page), scored_dataset.values("caption")
    expect(panel.content.locator(".js-plotly-plot g.point").first).to_be_visible()
    expect(panel.content.get_by_text("scored pairs in view")).to_be_visible()
    panel.picture(pictures, f"panel-suspects-{theme}")

    suspects = scored_dataset.match({"first_misalignment": {"$gte": 0.5}}).values("caption")
    panel.drag(0.51, 0.995)
    expect(count).to_have_text(f"{len(suspects)} samples")
    expect(panel.button("Clear selection")).to_be_enabled()
    panel.picture(pictures, f"panel-selection-{theme}")

    panel.tab("Review")
    expect(panel.content.get_by_text("of 60 pairs to review")).to_be_visible()
    accept = panel.button("Accept")
    expect(accept).to_be_visible()
    panel.picture(pictures, f"panel-review-{theme}")
    accept.click()
    expect(panel.content.get_by_text("of 59 pairs to review")).to_be_visible()
    scored_dataset.reload()
    (fixed,) = scored_dataset.exists("caption_fixes")
    assert fixed.caption == fixed["first_suggestion"].label
    in_grid = page.locator(f'[data-cy="tag-caption"][title="caption: {fixed.caption}"]')
    expect(in_grid).to_have_count(suspects.count(fixed.caption) + 1)
    panel.picture(pictures, f"panel-fixed-{theme}")
    panel.button("Undo last fix (1)").click()
    expect(panel.content.get_by_text("of 60 pairs to review")).to_be_visible()
    expect(in_grid).to_have_count(suspects.count(fixed.caption))
    panel.picture(pictures, f"panel-undone-{theme}")
    assert before == scored_dataset.values("caption")
    panel.button("Clear selection").click()
    expect(count).to_have_text("60 samples")
    expect(panel.button("Clear selection")).to_be_disabled()

    panel.tab("Influence")
    expect(panel.content.get_by_text("What if")).to_be_visible()
    panel.button("Predict").click()
    form = OperatorForm(page, None)
    expect(form.dialog.get_by_text("of these pairs are harmful")).to_be_visible()
    form.button("Predict").click()
    done(page)
    expect(panel.content.get_by_text("The target loss is predicted to go from")).to_be_visible()
    panel.picture(pictures, f"panel-influence-{theme}")
    panel.tab("Health")
    expect(panel.content.get_by_text("cg_relative_residual")).to_be_visible()
    expect(panel.content.get_by_text("two standard errors away from 0")).to_be_visible()
    panel.picture(pictures, f"panel-health-{theme}")
    panel.content.get_by_text("anchor", exact=True).hover()
    expect(page.get_by_text("The strength of the proximal term")).to_be_visible()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_failing_sample_is_traced_to_the_pairs_to_blame_and_verified(open_page, scored_dataset, pictures, theme):
    page = open_page(scored_dataset, theme, *((1920, 1080) if theme == "dark" else (1280, 800)))
    OperatorForm(page, "ECIF: find failing queries").button("Find").click()
    done(page)
    panel = PanelPage(page)
    page.get_by_test_id("looker").first.click(position={"x": 70, "y": 66})  # its upper half selects it
    placed_button(page.get_by_test_id("modal"), "trace").click()
    form = OperatorForm(page, None)
    page.screenshot(path=pictures / f"trace-form-{theme}.png")
    form.button("Trace").click()
    done(page)

    expect(panel.content.get_by_role("tab", name="Trace")).to_have_attribute("aria-selected", "true")
    expect(panel.content.get_by_text("pairs most to blame, the margin is predicted")).to_be_visible()
    scored_dataset.reload()
    results = ecif.load_results(scored_dataset, "first")
    (key,) = results.list_traces()
    blamed = results.load_trace(key)
    expect(page.get_by_test_id("entry-counts")).to_have_text(f"{len(blamed)} samples")
    panel.button("Verify by refitting").click()
    OperatorForm(page, None).button("Refit").click()
    done(page)
    expect(panel.content.get_by_text("after refitting, it is")).to_be_visible()
    panel.picture(pictures, f"panel-trace-{theme}")


def test_selected_samples_are_repaired_from_the_form(open_page, scored_dataset, pictures):
    page = open_page(scored_dataset, width=1280, height=800)
    form = OperatorForm(page, "ECIF: review and apply suggestions")
    expect(form.input("Minimum confidence")).to_have_value("0.9")
    form.fill("Minimum confidence", "0")
    expect(form.dialog.get_by_text("samples will change")).to_be_visible()
    page.screenshot(path=pictures / "apply-dark.png")
    form.fill("Minimum confidence", "2")
    expect(
        form.dialog.get_by_text("The minimum confidence must be a probability between 0 and 1, not 2.")
    ).to_be_visible()
    expect(form.button("Apply")).to_be_disabled()
    form.fill("Minimum confidence", "0")
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
    form.fill("Rounds", "1000")
    form.fill("Batch size", "2")
    form.button("Compute").click()
    output = page.get_by_test_id("operators-prompt-view-modal")
    expect(output.get_by_text(" of ")).to_be_visible()

    other = open_page_at(page.context, page.url)
    panel = PanelPage(other)
    panel.button("Cancel").click()
    expect(output.get_by_text("Nothing was changed.")).to_be_visible()
    scored_dataset.reload()
    assert scored_dataset.list_runs() == ["first"]
    assert not scored_dataset.has_field("long_value")


MARKUP = '<i class="markup">a</i> **b** [c](d)'


def test_captions_that_are_markup_are_shown_as_they_stand(open_page, scored_dataset):
    scored_dataset.set_values("caption", [f"{MARKUP} {caption}" for caption in scored_dataset.values("caption")])
    suggested = scored_dataset.exists("first_suggestion.label")
    suggested.set_values("first_suggestion.label", [f"{MARKUP} better"] * len(suggested))
    ecif.load_results(scored_dataset, "first").trace(scored_dataset.first().id, k=5, progress=False)
    page = open_page(scored_dataset, width=1280, height=800)
    form = OperatorForm(page, "ECIF: review and apply suggestions")
    form.fill("Minimum confidence", "0")
    expect(form.dialog.get_by_text(f"{MARKUP} better").first).to_be_visible()
    expect(page.locator(".markup")).to_have_count(0)
    form.button("Cancel").click()
    panel = PanelPage(page)
    panel.tab("Review")
    expect(panel.content.get_by_text(f"{MARKUP} better").first).to_be_visible()
    expect(panel.content.get_by_text(MARKUP)).to_have_count(8)  # four captions and their suggestions
    panel.tab("Trace")
    expect(panel.content.locator(".js-plotly-plot text").filter(has_text="<i class").first).to_be_visible()
    expect(panel.content.get_by_text(scored_dataset.first().caption)).to_be_visible()
    expect(page.locator(".markup")).to_have_count(0)


def test_two_pages_show_the_same_selection_and_the_second_hears_of_a_deleted_sample(open_page, scored_dataset):
    page = open_page(scored_dataset, width=1280, height=800)
    first = PanelPage(page)
    expect(first.content.locator(".js-plotly-plot g.point").first).to_be_visible()
    other = open_page_at(page.context, page.url)
    second = PanelPage(other, is_open=True)  # which panels are open is kept in the server
    expect(second.content.locator(".js-plotly-plot g.point").first).to_be_visible()
    first.drag(0.51, 0.995)
    suspects = len(scored_dataset.match({"first_misalignment": {"$gte": 0.5}}))
    for panel in (first, second):
        expect(panel.page.get_by_test_id("entry-counts")).to_have_text(f"{suspects} samples")
        expect(panel.button("Clear selection")).to_be_enabled()
    second.button("Clear selection").click()
    for panel in (first, second):
        expect(panel.page.get_by_test_id("entry-counts")).to_have_text("60 samples")
        expect(panel.button("Clear selection")).to_be_disabled()

    second.tab("Review")
    expect(second.button("Accept")).to_be_visible()
    worst = ecif.to_review(scored_dataset, "first").first().id
    scored_dataset.delete_samples([worst])
    second.button("Caption is fine").click()
    expect(other.get_by_text("This sample was deleted in the meantime.")).to_be_visible()
    expect(second.content.get_by_text("of 59 pairs to review")).to_be_visible()
