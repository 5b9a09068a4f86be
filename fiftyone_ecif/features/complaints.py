"""What Pillow complains about while it reads a file: heard by whoever reads it, and kept from the process's warnings.

Jobs run in threads of one process, and Python's warnings and their filters belong to the process: what one job caught
or silenced there could be another's, and what was shown once is not warned about again, so that a count would miss it.
Pillow's modules therefore get a ``warnings`` of their own, which asks the thread that warns.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from PIL import Image

_heard: ContextVar[list[str] | None] = ContextVar("complaints", default=None)


@contextmanager
def hearing_complaints() -> Iterator[list[str]]:
    """Hear what Pillow complains about in the block, in this thread; no warning comes of it.

    Yields:
        the complaints so far: damaged metadata, unexpected sizes; not that there are too many pixels, which a reader
        has to ask for itself
    """
    _let_pillow_ask()
    complaints: list[str] = []
    token = _heard.set(complaints)
    try:
        yield complaints
    finally:
        _heard.reset(token)


class _PillowsWarnings:
    """The module ``warnings`` as Pillow's modules see it."""

    def warn(
        self, message: str | Warning, category: type[Warning] | None = None, stacklevel: int = 1, **options: Any
    ) -> None:
        complaints, kind = _heard.get(), category or UserWarning
        if complaints is not None and issubclass(kind, UserWarning):
            complaints.append(str(message))
        elif complaints is None or not issubclass(kind, Image.DecompressionBombWarning):
            warnings.warn(message, category, stacklevel + 1, **options)  # one frame more: this one

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


@functools.cache
def _let_pillow_ask() -> None:
    """Put :class:`_PillowsWarnings` in the place of ``warnings`` in Pillow's modules."""
    Image.preinit()
    Image.init()  # the readers of all formats, so that none is imported later
    instead = _PillowsWarnings()
    for name, module in list(sys.modules.items()):
        if name.startswith("PIL.") and "warnings" in vars(module):
            vars(module)["warnings"] = instead
