"""Every scenario of the benchmark: a set of items under a shift, and the set that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.data import openclipart
from benchmarks.shift.corruptions import IMAGE_SHIFTS, JOINT_SHIFTS, TEXT_SHIFTS
from benchmarks.shift.model import Model, Seen
from benchmarks.shift.tasks import (
    EVALUATED,
    LANGUAGES,
    OTHER_VENDOR,
    SEED,
    USUAL_VENDOR,
    VENDORS,
    Items,
    Task,
    emoji_items,
    looks_like_a_photograph,
    openclipart_items,
)

LOOK = "like photographs"
"""The natural shift whose two sets are of different items."""

TRAINED_SEVERITY = 3
"""At which the estimator sees each shift of images, besides the items as they are."""


@dataclass(frozen=True)
class Scenario:
    """A shift of one task.

    Attributes:
        task: its name
        kind: of the shift
        severity: 1 to 5; 0 for a natural shift
        before: the items without the shift
        after: the items with it
    """

    task: str
    kind: str
    severity: int
    before: Seen
    after: Seen


def made(model: Model, task: Task, severities: Sequence[int]) -> Iterator[Scenario]:
    """A task's items under every made shift."""
    items = task.evaluated
    before = model.sees(items)
    for severity in severities:
        for kind in IMAGE_SHIFTS:
            yield Scenario(task.name, kind, severity, before, model.sees(items, image_shift=(kind, severity)))
        for kind in TEXT_SHIFTS:
            yield Scenario(task.name, kind, severity, before, model.sees(items, text_shift=(kind, severity)))
        for image, text in JOINT_SHIFTS:
            after = model.sees(items, (image, severity), (text, severity))
            yield Scenario(task.name, f"{image} and {text}", severity, before, after)


def natural(model: Model, task: Task) -> Iterator[Scenario]:
    """A task's natural shifts: other vendors' drawings, other languages; drawings like photographs against others."""
    if task.name == "openclipart":
        lines, photographs = drawings_by_look()
        yield Scenario(task.name, LOOK, 0, model.sees(lines), model.sees(photographs))
    if task.name != "emoji":
        return
    before = model.sees(task.evaluated)
    for vendor in VENDORS:
        if vendor != USUAL_VENDOR:
            items = emoji_items(vendor)["evaluated"]
            yield Scenario(task.name, f"drawn by {vendor}", 0, before, model.sees(items))
    for language in LANGUAGES:
        if language != "en":
            for vendor, drawn in ((USUAL_VENDOR, ""), (OTHER_VENDOR, f"drawn by {OTHER_VENDOR}, ")):
                items = emoji_items(vendor, language)["evaluated"]
                yield Scenario(task.name, f"{drawn}asked in {language}", 0, before, model.sees(items))


def drawings_by_look() -> tuple[Items, Items]:
    """Of Openclipart, the drawings that look least and most like photographs, among those nothing was fitted on."""
    every = openclipart.load(train=2_800, heldout=600, seed=SEED, progress=False)
    items = openclipart_items(every.select(np.arange(1_600, len(every))))
    order = np.argsort([looks_like_a_photograph(path) for path in items.filepaths], kind="stable")
    return items.of(order[:EVALUATED].tolist()), items.of(order[-EVALUATED:].tolist())


def estimator_sets(model: Model, tasks: Sequence[Task]) -> list[Seen]:
    """What the estimator is trained on: other items of every task, as they are and under each shift of images."""
    found = []
    for task in tasks:
        found.append(model.sees(task.estimated))
        found += [model.sees(task.estimated, image_shift=(kind, TRAINED_SEVERITY)) for kind in IMAGE_SHIFTS]
        found += [model.sees(task.estimated, text_shift=(kind, TRAINED_SEVERITY)) for kind in TEXT_SHIFTS]
    return found
