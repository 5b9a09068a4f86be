"""How a test uses the panel in the App."""

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SCROLL_DOWN = """content => [content, ...content.querySelectorAll("*")].filter(each => {
    const scrolls = /auto|scroll/.test(getComputedStyle(each).overflowY)
    if (!scrolls || each.scrollHeight <= each.clientHeight + 20) return false
    each.scrollTop = each.scrollHeight
    return true
}).length"""


class PanelPage:
    """The panel, opened beside the grid."""

    def __init__(self, page: Page, is_open: bool = False):
        self.page = page
        if not is_open:
            page.get_by_test_id("new-panel-btn").first.click()
            page.get_by_test_id("new-panel-option-ecif_panel").click()
        self.content = page.get_by_test_id("panel-content-ecif_panel")
        expect(self.content).to_be_visible()

    def picture(self, folder: Path, name: str) -> None:
        """Two pictures: the panel's upper end and, where it is longer than the page, its lower end."""
        self.page.mouse.move(0, 0)
        self.page.get_by_test_id("looker").first.wait_for()  # the grid may be drawn anew
        self.page.screenshot(path=folder / f"{name}.png")
        if self.content.evaluate(SCROLL_DOWN):
            self.page.screenshot(path=folder / f"{name}-below.png")

    def tab(self, name: str) -> None:
        self.content.get_by_role("tab", name=name).click()

    def button(self, name: str) -> Locator:
        return self.content.get_by_role("button", name=name, exact=True).first

    def drag(self, start: float, end: float) -> None:
        """Drag over the first plot between two shares of its width."""
        plot = self.content.locator(".js-plotly-plot .nsewdrag").first
        plot.hover()  # waits until it stands still
        box = plot.bounding_box()
        y, mouse = box["y"] + box["height"] / 2, self.page.mouse
        mouse.move(box["x"] + start * box["width"], y)
        mouse.down()
        for step in range(1, 9):
            mouse.move(box["x"] + (start + (end - start) * step / 8) * box["width"], y - 3 * step)
        mouse.up()
