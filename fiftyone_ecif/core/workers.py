"""Where the parts of a pass run: the interface between the mathematics and one process, or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

Progress = Callable[[str, int, int], None]
"""A function of a step's name, the work done and the work in all; it may raise to cancel."""


def silent(step: str, done: int, total: int) -> None:
    """A :data:`Progress` that does nothing."""


class Workers(Protocol):
    """Processes that share work.

    Attributes:
        count: how many parts can run at once
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
            function: from the top level of a module; it may run again on a part whose worker died
            parts: the parts of the work
            shared: further arguments, the same for every part
            step: the step's name for ``progress``
            progress: called as the work goes on
        """
        ...


class ThisProcess:
    """Run one part after the other in this process."""

    count = 1

    def map(
        self,
        function: Callable[..., Any],
        parts: Sequence[Any],
        *shared: Any,
        step: str = "",
        progress: Progress = silent,
    ) -> Iterator[Any]:
        """See :class:`Workers`; here the function reports its own progress."""
        for part in parts:
            yield function(part, *shared, progress)


HERE: Workers = ThisProcess()
