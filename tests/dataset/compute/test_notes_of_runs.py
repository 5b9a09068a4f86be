"""What a run says: of itself alone, also while others work, and about the user's own line."""

import threading
import warnings

import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.compute import embed
from tests.support.together import together


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_runs_in_two_threads_keep_their_own_notes_and_leave_the_filters_alone(embedded_dataset, stored, monkeypatch):
    few, source_of = embedded_dataset.limit(12).clone(), embed.source_of
    begun, turn = threading.Event(), threading.Barrier(2)
    state = list(warnings.filters), warnings.showwarning

    def both_at_once(*arguments):
        begun.set()
        turn.wait(60)
        source = source_of(*arguments)
        turn.wait(60)
        assert (list(warnings.filters), warnings.showwarning) == state
        return source

    monkeypatch.setattr(embed, "source_of", both_at_once)
    notes = {}

    def random_model():
        quick = dict(batch_size=6, rounds=1, num_workers=0, progress=False)
        notes["random"] = ecif.compute_influence(few, "caption", model="ecif-tiny", **quick).warnings

    def stored_embeddings():
        assert begun.wait(60)
        notes["stored"] = ecif.compute_influence(embedded_dataset, **stored).warnings

    assert together([random_model, stored_embeddings]) == [None, None]
    assert any("random weights" in note for note in notes["random"])
    assert not any("random weights" in note for note in notes["stored"])


def test_warnings_are_about_the_line_that_asked_for_the_run(embedded_dataset, stored):
    embedded_dataset.select(embedded_dataset.first().id).set_field("caption", " ").save()
    for call in (
        lambda: ecif.compute_influence(embedded_dataset, **stored),
        lambda: ecif.refresh_run(embedded_dataset, progress=False),
    ):
        with pytest.warns(UserWarning, match="1 pairs were skipped") as caught:
            call()
        about = {(warning.filename, warning.lineno) for warning in caught}
        assert about == {(__file__, call.__code__.co_firstlineno)}
