"""Runs, traces and operators leave no open files, threads or connections behind."""

import pytest

pytest.importorskip("fiftyone")

from benchmarks.speed.growth import AT_ONCE, Held, Work, growth_table, repeated

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FIRST, TIMES = 2, 6


@pytest.fixture(scope="module")
def work():
    return Work(60)


@pytest.mark.parametrize("kind", ["run", "trace"])
def test_work_that_is_done_leaves_nothing_open(work, kind):
    early, late = repeated(getattr(work, kind), FIRST, TIMES)
    assert late._replace(memory=0) == early._replace(memory=0)


def test_operators_in_threads_leave_no_more_than_a_connection_for_each_thread(work):
    """How many connections the pool has opened depends on how many threads have met."""
    early, late = repeated(work.operators, FIRST, TIMES)
    assert late.threads == early.threads
    assert late.files - early.files < AT_ONCE and late.connections - early.connections < AT_ONCE


def test_the_table_says_what_was_there_before_and_after():
    early, late = Held(100 * 2**20, 12, 8, 6), Held(105 * 2**20, 13, 8, 6)
    assert growth_table({"run": (early, late)}).rows[0][1:] == [100, 5, "5.0%", "12 → 13", "8 → 8", "6 → 6"]
