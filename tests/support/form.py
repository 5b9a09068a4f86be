"""How a test uses an operator's form in the App."""

import time

from playwright.sync_api import Locator, Page, expect

SECONDS_BEFORE_A_CHANGE_IS_SENT = 0.7


def done(page: Page) -> None:
    """Wait until an operator has shown what it did, and close that."""
    output = page.get_by_test_id("operators-prompt-view-modal")
    expect(output).to_be_visible()
    expect(output.get_by_role("progressbar")).to_have_count(0)  # the button is there from the beginning
    output.get_by_role("button", name="Done").click()
    expect(output).to_have_count(0)


def placed_button(scope: Page | Locator, icon: str) -> Locator:
    """An operator's button above the grid or beside the open sample, by the name of its icon: it has no words."""
    return scope.locator(f'img[src*="{icon}.svg"]').first


class OperatorForm:
    """An operator's form, opened from the operator browser by the operator's label; None: it is open."""

    def __init__(self, page: Page, label: str | None):
        self.page = page
        if label is not None:
            page.get_by_test_id("action-browse-operations").click()
            operators = page.get_by_test_id("operators-browser")
            operators.get_by_role("textbox").fill(label)
            operators.get_by_text(label, exact=True).first.click()
        self.dialog = page.get_by_test_id("operators-prompt-modal")
        expect(self.button("Cancel")).to_be_visible()  # the first form waits for open_clip's import
        self.settle()

    def settle(self) -> None:
        """Wait until the form has been resolved and checked after the last change."""
        time.sleep(SECONDS_BEFORE_A_CHANGE_IS_SENT)
        expect(self.dialog.locator(".MuiDialogActions-root .MuiCircularProgress-root")).to_have_count(0)

    def input(self, label: str) -> Locator:
        """The input below a label; the App does not link the two."""
        return self.dialog.locator(
            f'xpath=.//p[normalize-space()="{label}"]/following::*[self::input or self::textarea][1]'
        )

    def fill(self, label: str, value: str) -> None:
        self.input(label).fill(value)
        self.settle()

    def choose(self, label: str, option: str) -> None:
        self.dialog.locator(f'xpath=.//p[normalize-space()="{label}"]/following::*[@role="combobox"][1]').click()
        self.page.get_by_role("option", name=option).first.click()
        self.settle()

    def choose_radio(self, option: str) -> None:
        self.dialog.get_by_text(option, exact=True).click()
        self.settle()

    def button(self, name: str) -> Locator:
        return self.dialog.locator(".MuiDialogActions-root").get_by_role("button", name=name, exact=True)
