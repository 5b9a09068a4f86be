"""Notes reach the collector of their own thread, or the user as a warning about the user's own line."""

import threading
import warnings

import pytest

from fiftyone_ecif.notes import collecting_notes, note
from tests.support.together import together


def test_threads_collect_their_own_notes_and_leave_the_filters_alone():
    filters, show, turn = list(warnings.filters), warnings.showwarning, threading.Barrier(2)
    found = {}

    def job(name):
        with collecting_notes() as notes:
            for number in range(2):
                turn.wait(30)
                note(f"{name} {number}")
                assert list(warnings.filters) == filters and warnings.showwarning is show
        found[name] = notes

    assert together([lambda: job("one"), lambda: job("other")]) == [None, None]
    assert found == {"one": ["one 0", "one 1"], "other": ["other 0", "other 1"]}


def test_a_note_is_collected_once_and_by_the_innermost_block():
    with collecting_notes() as outer:
        with collecting_notes() as inner:
            note("twice")
            note("twice")
        note("after")
    assert (inner, outer) == (["twice"], ["after"])


def test_where_nobody_collects_a_note_is_a_warning():
    with pytest.warns(UserWarning, match="said aloud"):
        note("said aloud")
