"""Wrong words are named for suspects, by the run's model, into a field of the run."""

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.fields import WRONG_WORDS
from fiftyone_ecif.models import load_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def test_words_are_named_written_and_live_with_their_run(pair_dataset):
    torch.manual_seed(0)
    few, model = pair_dataset[:12], load_model("ecif-tiny")
    few.limit(1).set_field("caption", "thing").save()
    quick = dict(rounds=1, batch_size=12, num_workers=0, progress=False)
    results = ecif.compute_influence(few, "caption", model=model, **quick)
    results.use_model(model)
    steps = []
    named = results.name_wrong_words(few, k=2, progress=lambda *step: steps.append(step))
    assert steps[0][1:] == (0, 12) and steps[-1][1:] == (12, 12) and len({step for step, _, _ in steps}) == 1
    assert set(named) == set(few.values("id"))
    for id, words in named.items():
        caption = pair_dataset[id].caption
        assert pair_dataset[id]["ecif_wrong_words"] == words
        assert words == [] if caption == "thing" else len(words) == 2 and set(words) <= set(caption.split())
    assert pair_dataset.get_field("ecif_wrong_words").description == WRONG_WORDS.description
    assert results.fields["wrong_words"] == "ecif_wrong_words"
    suspects = results.misaligned(threshold=0.5).values("id")
    assert set(results.name_wrong_words(k=1, progress=False)) == set(suspects)
    ecif.rename_run(pair_dataset, "ecif", "other")
    assert pair_dataset.has_sample_field("other_wrong_words")
    ecif.delete_run(pair_dataset, "other")
    assert not pair_dataset.has_sample_field("other_wrong_words")


def test_a_job_that_is_stopped_writes_nothing(pair_dataset):
    torch.manual_seed(0)
    few, model = pair_dataset[:12], load_model("ecif-tiny")
    results = ecif.compute_influence(few, "caption", model=model, rounds=1, num_workers=0, progress=False)
    results.use_model(model)

    def stop(step, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.name_wrong_words(few, progress=stop)
    assert not pair_dataset.has_sample_field("ecif_wrong_words")


def test_runs_without_a_text_tower_or_captions_say_so(embedded_dataset, stored):
    without = {
        "stored embeddings": stored,
        "computed on labels": stored | {"text_field": "ground_truth"},
        "without captions": stored | {"text_field": None},
    }
    for number, (words, arguments) in enumerate(without.items()):
        results = ecif.compute_influence(embedded_dataset, run_key=f"run{number}", **arguments)
        with pytest.raises(ValueError, match=words):
            results.name_wrong_words(progress=False)
    for wrong in (0, 1.5, "two", 10**9):
        with pytest.raises(ValueError, match="k must be"):
            results.name_wrong_words(k=wrong)
    assert not [name for name in embedded_dataset.get_field_schema() if "wrong_words" in name]
