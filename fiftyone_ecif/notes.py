"""What the user should know, from wherever it is noticed to whoever collects it; a warning where nobody does.

Jobs run in threads of one process, and Python's warnings and their filters belong to the process: what one job caught
there could be another's. A collector belongs to its thread alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

_PACKAGE = f"{Path(__file__).parent}/"

_collected: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def collecting_notes() -> Iterator[list[str]]:
    """Collect what is noted in the block, by this thread.

    Yields:
        the notes so far, each once
    """
    notes: list[str] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)


def note(text: str) -> None:
    """Tell the user something: by the block that collects notes, or else by a warning.

    Args:
        text: in plain words
    """
    notes = _collected.get()
    if notes is None:
        warn(text)
    elif text not in notes:
        notes.append(text)


def warn(text: str) -> None:
    """Warn about the line that called this package, whatever functions of it lie between.

    Args:
        text: in plain words
    """
    line = _calling_line()
    seen = line.f_globals.setdefault("__warningregistry__", {})
    name = line.f_globals.get("__name__")
    warnings.warn_explicit(text, UserWarning, line.f_code.co_filename, line.f_lineno, name, seen)


def _calling_line() -> FrameType:
    """The frame that called the package's outermost function on this thread's stack."""
    caller = frame = sys._getframe()
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            caller = frame.f_back
        frame = frame.f_back
    return caller
