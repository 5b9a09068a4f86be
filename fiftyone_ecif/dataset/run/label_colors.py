"""The colours of a run's labels on thumbnails, on which the letters of the App's dark and light theme can be read.

Left alone, the App draws colours from a pool that is made for white letters; the light theme's are black. Black and
white stand out equally, 4.6 to 1, from a colour whose relative luminance is 0.18
(https://www.w3.org/TR/WCAG22/#contrast-minimum asks for 4.5 to 1): all these have that luminance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import fiftyone as fo

from fiftyone_ecif.dataset.fields import SHIFT_FIELDS

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3078c0", "#c05610", "#21864b", "#a058b8", "#677789"
COLORS = {
    "misalignment": ORANGE,
    "suggestion": GREEN,
    "value": PURPLE,
    "margin": PURPLE,
    "vagueness": PURPLE,
    **dict.fromkeys(SHIFT_FIELDS, ORANGE),
}
"""By what follows the run's key in a field's name; others are grey."""


def color_of(name: str) -> str:
    """The colour of a run's field, by the field's name."""
    return next((color for suffix, color in COLORS.items() if name.endswith(f"_{suffix}")), GREY)


def with_label_colors(
    scheme: fo.ColorScheme | None,
    colored: Mapping[str, str],
    ended: Iterable[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> fo.ColorScheme | None:
    """A dataset's colour scheme after a change of its runs' fields; where the user chose a colour, it stays.

    Args:
        scheme: the dataset's; None if it has none
        colored: colours by the names of fields that should have one
        ended: names of fields that are gone
        renamed: names of fields, old → new

    Returns:
        the scheme; None if it still has none
    """
    gone, new = set(ended), renamed or {}
    before = [] if scheme is None else [dict(each) for each in scheme.fields or ()]
    kept = [each | {"path": new.get(each["path"], each["path"])} for each in before if each["path"] not in gone]
    chosen = {each["path"] for each in kept}
    kept += [{"path": path, "fieldColor": color} for path, color in colored.items() if path not in chosen]
    if kept == before:
        return scheme
    scheme = scheme or fo.ColorScheme()
    scheme.fields = kept
    return scheme
