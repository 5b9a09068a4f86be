"""The panel in the App: its pictures, the selection on them, and a repair from card to grid and back."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect


@pytest.fixture
def pictures(tmp_path):
    """Where pictures are left: in the folder that the environment variable ECIF_SCREENSHOTS names."""
    folder = Path(os.environ.get("ECIF_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_panel(page):
    page.get_by_test_id("new-panel-btn").first.click()
    page.get_by_test_id("new-panel-option-ecif_panel").click()
    panel = page.get_by_test_id("panel-content-ecif_panel")
    expect(panel).to_be_visible()
    return panel


def test_the_panel(open_page, scored_dataset, pictures):
    page = open_page(scored_dataset, width=1280, height=800)
    panel = open_panel(page)
    try:
        expect(panel.locator(".js-plotly-plot g.point").first).to_be_visible()
    finally:
        page.wait_for_timeout(1500)
        page.screenshot(path=pictures / "panel-suspects.png")
    for tab in ("Review", "Influence", "Health"):
        panel.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(3000)
        page.screenshot(path=pictures / f"panel-{tab}.png")
