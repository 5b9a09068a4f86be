"""A run stands on one snapshot: what people do meanwhile changes nothing in it."""

import shutil

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.models import load_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

QUICK = dict(text_field="caption", rounds=1, batch_size=20, num_workers=0)


@pytest.fixture(scope="module")
def tiny():
    """Arguments of a quick run by one and the same random model."""
    torch.manual_seed(0)
    return QUICK | dict(model=load_model("ecif-tiny"))


def when(step, act):
    """A progress that acts once, when a step begins."""
    waiting = [act]

    def progress(name, done, total):
        if name == step and waiting:
            waiting.pop()()

    return progress


def scores(dataset, run_key):
    fields = ("value", "misalignment", "suggestion.label", "self_influence")
    return dict(zip(dataset.values("id"), zip(*dataset.values([f"{run_key}_{name}" for name in fields]), strict=True)))


@pytest.mark.parametrize("step", ["Embed", "Embed views", "Scores", "Cross-fit"])
def test_captions_edited_during_a_run_are_those_of_its_beginning_everywhere(pair_dataset, tiny, step):
    quiet = ecif.compute_influence(pair_dataset, run_key="quiet", progress=False, **tiny)
    captions = pair_dataset.values("caption")

    def edit():
        pair_dataset.set_values("caption", [f"another {number}" for number in range(len(captions))])

    results = ecif.compute_influence(pair_dataset, run_key="edited", progress=when(step, edit), **tiny)
    assert [words for words in results.warnings if words.startswith("60 texts in 'caption' were changed")]
    assert not [words for words in quiet.warnings if "while the run" in words]
    assert pair_dataset.values("caption") != captions
    assert scores(pair_dataset, "edited") == scores(pair_dataset, "quiet")
    suggested = set(pair_dataset.values("edited_suggestion.label")) - {None}
    assert suggested <= set(captions)
    assert quiet.config.view_fingerprint is not None


@pytest.mark.parametrize("step", ["Embed", "Scores"])
def test_a_sample_deleted_during_a_run_turns_nothing_off(pair_dataset, tiny, step):
    ecif.compute_influence(pair_dataset, run_key="quiet", progress=False, **tiny)
    expected = scores(pair_dataset, "quiet")
    gone = pair_dataset.skip(7).first().id
    results = ecif.compute_influence(
        pair_dataset, run_key="edited", progress=when(step, lambda: pair_dataset.delete_samples(gone)), **tiny
    )
    assert results.config.view_fingerprint is not None
    assert results.health["pairs"] == 60 and len(pair_dataset.exists("edited_value")) == 59
    found = scores(pair_dataset, "edited")
    assert found == {id: expected[id] for id in found}
    assert gone in results.ids and len(results.pairs()) == 60
    assert [words for words in results.warnings if words.startswith("1 samples were deleted while the run was")]


def test_nothing_is_written_where_no_sample_is_left(pair_dataset, tiny):
    with pytest.raises(ValueError, match="All samples were deleted while the run was computed"):
        ecif.compute_influence(
            pair_dataset,
            progress=when("Scores", lambda: pair_dataset.delete_samples(pair_dataset.values("id"))),
            **tiny,
        )
    assert ecif.list_runs(pair_dataset) == []
    assert not [name for name in pair_dataset.get_field_schema() if name.startswith("ecif_")]


def test_labels_edited_and_a_text_field_renamed_during_a_run_are_told_apart(pair_dataset, tiny):
    labelled = tiny | dict(text_field="ground_truth")

    def edit():
        pair_dataset[:2].set_values("ground_truth.label", ["other", "other"])

    results = ecif.compute_influence(pair_dataset, progress=when("Scores", edit), **labelled)
    assert [words for words in results.warnings if words.startswith("2 texts in 'ground_truth' were changed")]
    progress = when("Scores", lambda: pair_dataset.rename_sample_field("caption", "text"))
    results = ecif.compute_influence(pair_dataset, run_key="renamed", progress=progress, **tiny)
    assert not [words for words in results.warnings if "texts in" in words]
    assert [words for words in results.warnings if words.startswith("The field 'caption' was renamed")]
    results.change_text_field("text")
    assert ecif.load_results(pair_dataset, "renamed").estimate_removal(pair_dataset[:4]).removed == 4


def test_a_sample_deleted_during_a_run_inside_the_towers_does_not_end_it(pair_dataset, monkeypatch):
    from functools import partial

    from fiftyone_ecif.attribution import Attributed
    from fiftyone_ecif.dataset import chosen_scope

    monkeypatch.setattr(chosen_scope, "Attributed", partial(Attributed, fit_steps=1, probes=1))
    gone = pair_dataset.skip(7).first().id
    torch.manual_seed(0)
    deep = QUICK | dict(model=load_model("ecif-tiny-vit"), scope="resblocks.1.mlp", anchor=10.0)
    results = ecif.compute_influence(
        pair_dataset[:24], progress=when("Embed views", lambda: pair_dataset.delete_samples(gone)), **deep
    )
    assert results.health["pairs"] == 24 and len(pair_dataset.exists("ecif_value")) == 23


def test_an_image_that_vanishes_before_it_is_read_again_is_said(pair_dataset, tiny, tmp_path):
    sample = pair_dataset.first()
    copy = tmp_path / "gone.png"
    shutil.copy(sample.filepath, copy)
    sample.filepath = str(copy)
    sample.save()

    def vanish(step, done, total):
        if step == "Embed" and done == total:
            copy.unlink(missing_ok=True)

    results = ecif.compute_influence(pair_dataset, progress=vanish, **tiny)
    assert results.config.view_fingerprint is None
    assert any("1 images could not be read a second time" in warning for warning in results.warnings)


def test_marks_that_come_during_a_run_count_for_the_next(pair_dataset, tiny):
    ecif.compute_influence(pair_dataset, run_key="quiet", progress=False, **tiny)
    progress = when("Scores", lambda: pair_dataset[20:30].tag_samples("trusted"))
    ecif.compute_influence(pair_dataset, run_key="marked", progress=progress, **tiny)
    assert scores(pair_dataset, "marked") == scores(pair_dataset, "quiet")
    ecif.compute_influence(pair_dataset, run_key="next", progress=False, **tiny)
    assert max(pair_dataset[20:30].values("next_misalignment")) < 1e-3
