"""A process that is killed at any moment of a change leaves a whole run or none, and everything else as it was.

Every point is tried where ``FAULTS=all`` (`make test-faults`), a few of each kind otherwise.
"""

import os

import pytest

from fiftyone_ecif.dataset.run.journal import unfinished
from tests.faults.scene import (
    KEY,
    NEW,
    OLD,
    delete,
    embedded_samples,
    in_child,
    leftovers,
    look,
    ours,
    rename,
    scene,
    score,
    theirs,
    write_new,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ALL = os.environ.get("FAULTS") == "all"
FEW = 5
"""Points of each kind that the short form tries."""

CALLS = {
    "fresh": (write_new, (False,)),
    "overwrite": (write_new, (True,)),
    "rename": (rename, ()),
    "delete": (delete, ()),
}


def points(count: int, few: int) -> list[int]:
    """The points to try: all, or a few from the first to the last."""
    if ALL or count <= few:
        return list(range(1, count + 1))
    return sorted({1 + round(part * (count - 1) / (few - 1)) for part in range(few)})


def outcome(dataset, undisturbed: dict, before: dict) -> str:
    """Whether a killed call left what was before or what an undisturbed one leaves; anything else fails."""
    now = {key: ours(dataset, key) for key in (KEY, "renamed")}
    assert now in (before, undisturbed), now
    return "made" if now == undisturbed else "undone"


@pytest.mark.parametrize("kind", CALLS)
def test_a_kill_before_any_command_leaves_a_whole_run_and_all_else_as_it_was(kind):
    call, arguments = CALLS[kind]
    reference = scene(with_run=kind != "fresh")
    _, commands = in_child(call, reference.name, *arguments)
    undisturbed = {key: ours(reference, key) for key in (KEY, "renamed")}
    base = NEW if call is write_new else OLD
    there = undisturbed["renamed" if kind == "rename" else KEY]["values"]
    assert ([sample.get("_value") for sample in there][:4] == [base + row for row in range(4)]) is (kind != "delete")
    ends = []
    for point in points(commands, FEW):
        dataset = scene(with_run=kind != "fresh")
        before, others = {key: ours(dataset, key) for key in (KEY, "renamed")}, theirs(dataset)
        assert in_child(call, dataset.name, *arguments, kill_at=point) is None
        listed, _ = in_child(look, dataset.name)
        assert theirs(dataset) == others, f"killed before command {point} of {commands}"
        assert leftovers(dataset) == [], f"killed before command {point} of {commands}"
        ends.append(outcome(dataset, undisturbed, before))
        again = {"fresh": (ends[-1] == "made",), "overwrite": (True,)}.get(kind, ())
        if kind in ("fresh", "overwrite") or ends[-1] == "undone":
            in_child(call, dataset.name, *again)
        assert outcome(dataset, undisturbed, before) == "made" and theirs(dataset) == others
        assert leftovers(dataset) == [] and "other" in listed
    assert ends == sorted(ends, reverse=True) and len(set(ends)) == 2  # undone up to one command, made from there on
    print(f"{kind}: {len(ends)} of {commands} commands tried, {ends.count('undone')} undone, {ends.count('made')} made")


@pytest.mark.parametrize("part", [0.5, 0.75])
def test_a_kill_during_the_repair_is_repaired_by_the_next_call(part):
    reference = scene(with_run=True)
    _, commands = in_child(write_new, reference.name, True)
    undisturbed = {key: ours(reference, key) for key in (KEY, "renamed")}
    in_child(write_new, reference.name, True, kill_at=round(part * commands))
    _, repairs = in_child(look, reference.name)
    for point in points(repairs, 2):
        dataset = scene(with_run=True)
        before, others = {key: ours(dataset, key) for key in (KEY, "renamed")}, theirs(dataset)
        assert in_child(write_new, dataset.name, True, kill_at=round(part * commands)) is None
        assert unfinished(dataset._doc.id) is not None
        assert in_child(look, dataset.name, kill_at=point) is None
        in_child(look, dataset.name)
        assert outcome(dataset, undisturbed, before) == ("undone" if part == 0.5 else "made")
        assert theirs(dataset) == others and leftovers(dataset) == [], f"killed before repair {point} of {repairs}"
    print(f"{len(points(repairs, 2))} of {repairs} commands of the repair tried")


def test_a_kill_before_any_progress_leaves_the_old_run_and_the_next_call_scores_the_same():
    reference = embedded_samples()
    calls, _ = in_child(score, reference.name, None, False)
    undisturbed = ours(reference)["values"]
    assert len({sample["_value"] for sample in undisturbed}) > 20
    for point in points(calls, 3):
        dataset = embedded_samples()
        before = ours(dataset)["values"]
        assert in_child(score, dataset.name, point, False) is None
        listed, _ = in_child(look, dataset.name)
        written = listed == [KEY]
        assert ours(dataset)["values"] == (undisturbed if written else before)
        assert written == (point == calls)  # the last progress is told when the run is written
        in_child(score, dataset.name, None, written)
        assert ours(dataset)["values"] == undisturbed and leftovers(dataset) == []
    print(f"{len(points(calls, 3))} of {calls} progress calls tried")
