"""An audit in the App: pairs are drawn, judged on their cards, and the run is recalibrated."""

from playwright.sync_api import expect

from tests.support.panel import PanelPage


def test_random_pairs_are_drawn_judged_and_recalibrate(open_page, scored_dataset):
    page = open_page(scored_dataset, width=1280, height=1100)
    panel, before = PanelPage(page), scored_dataset.values("first_misalignment")
    panel.tab("Review")
    expect(panel.content.get_by_text("of 60 pairs to review")).to_be_visible()
    panel.button("Audit 20 random pairs").click()
    expect(panel.content.get_by_text("of 20 pairs to review")).to_be_visible()
    expect(panel.content.get_by_text("Drawn at random for an audit")).to_be_visible()
    panel.button("Caption is fine").click()
    expect(panel.content.get_by_text("Judged 1 pair, 0 of them wrong")).to_be_visible()
    expect(panel.content.get_by_text("of 19 pairs to review")).to_be_visible()
    panel.button("Recalibrate").click()
    expect(page.get_by_text("Recalibrated the probabilities")).to_be_visible()
    scored_dataset.reload()
    assert scored_dataset.values("first_misalignment") != before
