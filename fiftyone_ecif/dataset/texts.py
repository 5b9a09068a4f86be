"""The texts of a data set: where they stand, and what fixes have changed of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.checks import is_classification_field


def text_path(samples: SampleCollection, text_field: str) -> str:
    """The path of a caption, or of a label within its field."""
    return f"{text_field}.label" if is_classification_field(samples._dataset, text_field) else text_field


def fixes_field(text_field: str) -> str:
    """The field that records what fixes did to a text field."""
    return f"{text_field}_fixes"


def has_fixes(samples: SampleCollection, text_field: str) -> bool:
    """Whether fixes of a text field were ever recorded; a field of that name which somebody else made is none."""
    field = samples._dataset.get_field(fixes_field(text_field))
    return field is not None and (field.info or {}).get("text_field") == text_field


def before_fixes(
    text: str | None, times: Sequence[datetime] | None, earlier: Sequence[str | None] | None, moment: datetime
) -> str | None:
    """A text as it stood at a moment, as far as fixes have changed it since.

    Args:
        text: as it is now
        times: when it was fixed, oldest first, in UTC
        earlier: what each fix replaced
        moment: in UTC

    Returns:
        what the first fix after the moment replaced; the text itself where there was none
    """
    since = (before for at, before in zip(times or (), earlier or (), strict=True) if _naive(at) > _naive(moment))
    return next(since, text)


def literally(value: Any) -> dict[str, Any]:
    """A value in a MongoDB expression, where a bare text that begins with "$" would name a field."""
    return {"$literal": value}


def has_tag(tag: str) -> dict[str, Any]:
    """The MongoDB expression of whether a sample has a tag."""
    return {"$in": [literally(tag), {"$ifNull": ["$tags", []]}]}


def _naive(time: datetime) -> datetime:
    """A time in UTC without saying so; FiftyOne gives times in a zone where its configuration names one."""
    return time if time.tzinfo is None else time.astimezone(timezone.utc).replace(tzinfo=None)
