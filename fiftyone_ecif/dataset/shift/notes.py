"""What the user should know about a shift run, in plain words."""

from __future__ import annotations

from collections import Counter

from fiftyone_ecif.dataset.shift.read import overlap
from fiftyone_ecif.dataset.shift.record import Computed
from fiftyone_ecif.dataset.shift.results import REFERENCE


def notes_on(computed: Computed) -> list[str]:
    """What the user should know about a run."""
    notes = []
    taken = computed.taken
    if taken.skipped:
        reason, _ = Counter(taken.skipped.values()).most_common(1)[0]
        notes.append(f"{len(taken.skipped)} samples are left out, most of them for this reason: {reason}.")
    for name, count in overlap(taken).items():
        if count == len(taken.sets[name]) == len(taken.sets[REFERENCE]):
            notes.append(f"The set {name!r} is the reference itself: its shift is 0.")
        else:
            notes.append(
                f"{count} samples are in the set {name!r} and in the reference, which makes the two more alike. Their "
                f"fields speak of {name!r}."
            )
    several = Counter(id for name, ids in taken.sets.items() if name != REFERENCE for id in ids)
    if repeated := sum(count > 1 for count in several.values()):
        notes.append(f"{repeated} samples are in several scenarios: their fields speak of the first of them.")
    notes += _on_inputs(computed)
    if computed.judge is None:
        notes.append("There are no responses: the shift of the inputs is all that is said, without EMI and its bound.")
    elif (fit := computed.judge.fit) is not None and not fit.informed:
        notes.append(
            "The estimator foresees answers no better than their mean does: it has learnt nothing about how they "
            "depend on what was asked, and EMI says little. Train it on more samples."
        )
    return notes


def _on_inputs(computed: Computed) -> list[str]:
    """On sets with few samples, and embeddings that are all alike."""
    notes = []
    few, alike = set(), set()
    for name, found in computed.found.items():
        for role, shift in found.inputs.items():
            few |= {role} if shift.divergence.few else set()
            first = shift.directions[0].masses if shift.directions else (0.0, 0.0)
            if min(first) > 1.0 - 1e-9 or all(float(part.abs().max()) < 1e-12 for part in shift.contributions):
                alike.add((name, role))
    if few:
        named = " and ".join(sorted(few))
        notes.append(
            f"A set has fewer samples than the {named} embeddings have numbers, which makes any two sets look apart: "
            "read the debiased divergence beside the plain one."
        )
    for name, role in sorted(alike):
        notes.append(f"The {role} embeddings of {name!r} and of the reference are all alike: they tell nothing apart.")
    return notes
