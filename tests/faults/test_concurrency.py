"""Jobs that work at the same time lose nothing of each other's."""

import pytest

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.run import store
from fiftyone_ecif.dataset.run.lease import Busy
from fiftyone_ecif.dataset.run.writing import claimed
from tests.faults.scene import (
    KEY,
    embedded_samples,
    in_child,
    leftovers,
    look,
    refusal,
    scene,
    score,
    theirs,
    write_under,
)
from tests.support.prepared import columns, few_samples, write
from tests.support.together import together

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

STORED = dict(text_field="caption", image_embeddings="image_vector", text_embeddings="text_vector", run_key=KEY)


def check_whole(dataset, key, base):
    """A run has its fields and values."""
    for suffix, of in columns(dataset, base=base, evidence=True).items():
        found = dataset.values(f"{key}_{suffix}" if suffix != "suggestion" else f"{key}_suggestion.label")
        labels = {id: getattr(value, "label", value) for id, value in of.items()}
        assert found == [labels.get(id) for id in dataset.values("id")], (key, suffix)


def test_ten_runs_that_end_together_in_threads_keep_all_their_fields():
    dataset = scene(with_run=False)
    before, keys = theirs(dataset), [f"job{number}" for number in range(10)]
    calls = [
        lambda key=key, base=base: write(dataset, key, columns(dataset, base=base, evidence=True))
        for base, key in enumerate(keys)
    ]
    assert together(calls) == [None] * 10
    assert set(ecif.list_runs(dataset)) == {"other", *keys}
    for base, key in enumerate(keys):
        check_whole(dataset, key, base)
        ecif.delete_run(dataset, key)
    assert theirs(dataset) == before and leftovers(dataset) == []


def test_three_processes_and_a_renaming_that_end_together_keep_all_their_fields():
    dataset = scene(with_run=True)
    keys = ["a", "b", "c"]
    calls = [lambda key=key, base=base: in_child(write_under, dataset.name, key, base) for base, key in enumerate(keys)]
    assert together([*calls, lambda: ecif.rename_run(dataset, KEY, "d")]) == [None] * 4
    assert set(ecif.list_runs(dataset)) == {"other", "a", "b", "c", "d"}
    dataset.reload()
    for base, key in enumerate(keys):
        check_whole(dataset, key, base)
    check_whole(dataset, "d", 1.0)
    assert leftovers(dataset) == []


def test_of_two_that_write_under_one_key_one_is_refused_and_the_other_whole():
    dataset = few_samples()
    calls = [lambda base=base: write(dataset, KEY, columns(dataset, base=base, evidence=True)) for base in (1.0, 2.0)]
    raised = together(calls)
    assert sorted(type(error) for error in raised if error) == [ValueError] and "in use" in str(max(raised, key=bool))
    check_whole(dataset, KEY, 1.0 if raised[0] is None else 2.0)
    assert leftovers(dataset) == []


def test_a_second_job_of_a_key_is_refused_before_it_computes_anything():
    dataset, steps = embedded_samples(), []
    words = rf"Busy: Run '{KEY}' of dataset '{dataset.name}' is being computed by another job"
    with claimed(dataset, KEY):
        with pytest.raises(Busy, match="is being computed by another job"):
            ecif.compute_influence(dataset, **STORED, progress=lambda *step: steps.append(step))
        said, _ = in_child(refusal, score, dataset.name, None, False)
        assert said.startswith(words) and steps == []
        write(dataset, "y", columns(dataset))
        with pytest.raises(Busy, match="is being computed"):
            ecif.rename_run(dataset, "y", KEY)
        assert ecif.list_runs(dataset) == ["y"]
    ecif.rename_run(dataset, "y", KEY)


def test_a_key_is_free_again_after_an_error():
    dataset = embedded_samples()

    def cancel(*step):
        raise RuntimeError("cancelled")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="cancelled"):
            ecif.compute_influence(dataset, **STORED, progress=cancel)
    with claimed(dataset, KEY):
        pass


def test_runs_are_listed_as_they_were_while_another_job_writes(monkeypatch):
    dataset, listed = scene(with_run=True), []
    prepared = store._save_record

    def look_meanwhile(*arguments):
        prepared(*arguments)
        listed.append(ecif.list_runs(dataset))
        listed.append(in_child(look, dataset.name)[0])

    monkeypatch.setattr(store, "_save_record", look_meanwhile)
    write(dataset, "new", columns(dataset))
    assert listed == [["other", KEY]] * 2 and ecif.list_runs(dataset) == ["other", KEY, "new"]
