"""What a tab of the panel is: its content, its layout and its events, in one object.

FiftyOne calls each event's handler by its name on the panel. A tab marks its handlers with :func:`event`, and the panel
takes them over; a tab passes them on as it would pass any bound method, ``on_click=self.tag``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from fiftyone_ecif.dataset.arguments import Kind
from fiftyone_ecif.dataset.fields import METHOD

Handler = Callable[[foo.ExecutionContext], None]
"""A bound method that answers an event."""


@dataclass(frozen=True)
class Entry:
    """An entry of the panel's state that the user chooses, or that begins anew.

    Attributes:
        name: of the entry
        kind: what it may be, besides what it begins as; what pages and FiftyOne's store bring back is held against it
        chosen_by: the name of the handler of the event that chooses it; None if no single event does
        kept: whether all pages share it, and a reload brings it back
        begins_with: what makes it begin anew: another dataset, run or view; None if the tab sets it itself
        first: its value then
    """

    name: str
    kind: Kind
    chosen_by: str | None = None
    kept: bool = False
    begins_with: Literal["dataset", "run", "view"] | None = None
    first: Any = None

    def is_sound(self, value: Any) -> bool:
        """Whether a value can stand in the state."""
        if value is None or value == self.first:
            return value == self.first
        try:
            self.kind(self.name, value)
        except ValueError:
            return False
        return True


class TabPanel(Protocol):
    """What a tab asks of the panel that it belongs to."""

    @property
    def uri(self) -> str:
        """The panel's address in the App."""

    def show(self, ctx: foo.ExecutionContext) -> None:
        """Compute the chosen tab's content again."""

    def changed(self, ctx: foo.ExecutionContext, message: str) -> None:
        """Let grid and panel show a change of the data, and tell the user what was done."""

    def prompt(self, ctx: foo.ExecutionContext, operator: str, **params: object) -> None:
        """Open an operator's form; the panel is refreshed when the operator is done."""

    def open_sample(self, ctx: foo.ExecutionContext) -> None:
        """Handle a click on a sample: open it."""


def event(method: Callable[[Any, foo.ExecutionContext], None]) -> Callable[[Any, foo.ExecutionContext], None]:
    """Mark a method of a tab as an event's handler."""
    method.is_event = True  # type: ignore[attr-defined]
    return method


def events_of(owner: type) -> list[str]:
    """The names of a class's methods that :func:`event` has marked."""
    return [name for name in dir(owner) if getattr(getattr(owner, name), "is_event", False)]


class Tab:
    """A tab of the panel.

    A subclass computes in :meth:`content` what it shows, and keeps words in the panel's state and pictures in the
    panel's data. The state travels with every event, so it must stay small. Where a field changes, the App writes the
    pictures' data into the state, hence a picture's layout has a name of its own there.

    Class attributes:
        name: of the tab in the panel's state
        label: on the tab
        help: what the tab shows, for the panel's help
        method: what the runs are listed under that it is about
        entries: what of the panel's state is the tab's, as far as the panel has to do with it

    Args:
        panel: the panel that the tab belongs to
    """

    name: ClassVar[str]
    label: ClassVar[str]
    help: ClassVar[str]
    method: ClassVar[str] = METHOD
    entries: ClassVar[tuple[Entry, ...]] = ()

    def __init__(self, panel: TabPanel) -> None:
        self.panel = panel

    @property
    def uri(self) -> str:
        """The panel's: FiftyOne addresses a handler by its object's URI and its own name."""
        return self.panel.uri

    def events(self) -> dict[str, Handler]:
        """The handlers of the tab's events by name."""
        return {name: getattr(self, name) for name in events_of(type(self))}

    def has_news(self, ctx: foo.ExecutionContext) -> bool:
        """Whether something happened since the last look that the panel should turn to this tab for."""
        return False

    def content(self, ctx: foo.ExecutionContext, base: fo.DatasetView) -> None:
        """Compute what the tab shows, and put it into the panel's state and data.

        Args:
            ctx: of the panel
            base: the pairs that the panel is about

        Raises:
            ValueError: if something that it needs is gone; the panel shows the error's words
        """
        raise NotImplementedError

    def fields(self, state: Any) -> dict[str, Any]:
        """What the fields of the layout hold, by the names that the App keeps them under in the panel's state.

        If the App finds no value there, it puts the field's default in and reports it as if the user had chosen it.
        """
        return {}

    def layout(self, root: types.Object, ctx: foo.ExecutionContext) -> None:
        """Lay out what the state says. Words from the data are shown as they stand, never as markup."""
        raise NotImplementedError
