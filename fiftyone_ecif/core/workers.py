"""Where the parts of a pass run: the seam between the mathematics and one process, or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

Progress = Callable[[str, int, int], None]
"""Called with a step's name, the work done and the work in all; may raise to cancel."""


def silent(step: str, done: int, total: int) -> None:
    """A :data:`Progress` that shows nothing."""


class Workers(Protocol):
    """Processes that share work.

    Attributes:
        count: how many parts can be worked on at once
    """

    count: int

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[Any],
        *shared: Any,
        step: str = "",
        progress: Progress = silent,
    ) -> Iterator[Any]:
        """``function(part, *shared, progress)`` of each part, in the order of the parts.

        Args:
            function: at the top level of a module; may be run again on a part whose worker died
            parts: of the work
            shared: what every part needs
            step: the step's name for ``progress``
            progress: called as the work goes on
        """
        ...


class ThisProcess:
    """One part after the other, here."""

    count = 1

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[Any],
        *shared: Any,
        step: str = "",
        progress: Progress = silent,
    ) -> Iterator[Any]:
        """See :class:`Workers`; the function itself reports its progress."""
        for part in parts:
            yield function(part, *shared, progress)


HERE: Workers = ThisProcess()
