"""The score on data that leaves it little to go on: finite, a probability, and honest about it."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.detect.pipeline import find_misaligned


def make_pairs(case, pairs=400, classes=8, dim=16):
    """Embeddings around class centres with a fifth of the texts wrong, spoilt in one way, and which are wrong."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, dim, generator=generator)
    label = torch.arange(pairs) % classes
    rate = {"all right": 0.0, "all wrong": 1.0}.get(case, 0.2)
    wrong = torch.rand(pairs, generator=generator) < rate
    said = torch.where(wrong, (label + 1 + torch.arange(pairs) % (classes - 1)) % classes, label)
    image, text = (centres[each] + 0.4 * torch.randn(pairs, dim, generator=generator) for each in (label, said))
    rows = torch.arange(pairs)
    if case == "one caption for all":
        text = text[:1].expand_as(text)
    elif case == "one image for all":
        image = image[:1].expand_as(image)
    elif case == "all pairs alike":
        image, text = image[:1].expand_as(image), text[:1].expand_as(text)
    elif case == "thousands of duplicates":
        rows = torch.cat([rows, torch.arange(2000) % 4])
    elif case == "a class with one member":
        text = centres[said].clone()  # captions repeat, as a classifier of them needs
        image[0], text[0] = torch.randn(2, dim, generator=generator)
        wrong[0] = False
    elif case.endswith("pairs"):
        rows = rows[: int(case.split()[0])]
    return TensorPairs(image[rows].contiguous(), text[rows].contiguous()), wrong[rows].numpy()


NOTHING_TO_GO_ON = ["one caption for all", "all pairs alike"]


@pytest.mark.parametrize(
    "case",
    [
        *NOTHING_TO_GO_ON,
        "all right",
        "all wrong",
        "one image for all",
        "thousands of duplicates",
        "a class with one member",
        "4 pairs",
        "9 pairs",
    ],
)
@pytest.mark.parametrize("views", [False, True])
def test_whatever_the_pairs_misalignment_is_a_probability(case, views):
    pairs, wrong = make_pairs(case)
    settings = Settings(rounds=1, batch_size=64, anchor=0.1)
    # Images that give nothing away by themselves, as of a model that has memorised its pairs.
    seen = TensorPairs(pairs.image.flip(0), pairs.text) if views else pairs
    found, _ = find_misaligned(seen, pairs if views else None, Head.identity(16, 16, 2.0), "clip", settings)
    assert ((found.probability >= 0) & (found.probability <= 1)).all()  # no NaN either
    assert 0 <= found.noise_rate <= 1
    assert all(np.isfinite(part).all() for part in found.evidence.values())
    if case in NOTHING_TO_GO_ON:
        assert (found.probability == found.probability[0]).all()
    elif case in ("thousands of duplicates", "a class with one member") and not views:
        assert roc_auc_score(wrong, found.probability) > 0.8


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("alike", [["clip_text"], ["clip_text", "clip_image"]])
def test_a_run_with_nothing_to_go_on_says_so(embedded_dataset, stored, alike):
    for field in alike:
        embedded_dataset.set_values(field, [embedded_dataset.first()[field]] * 60)
    embedded_dataset.set_values("caption", ["a picture"] * 60)
    results = ecif.compute_influence(embedded_dataset, **stored)
    assert any("says nothing" in note for note in results.warnings)
    assert set(embedded_dataset.values("ecif_misalignment")) == {0.5}
    assert len(results.misaligned(precision=0.6)) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_so_few_pairs_that_they_cannot_be_told_apart_are_said_to_be_few(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset[:4], **stored)
    assert any("Only 4 pairs" in note for note in results.warnings)
    with pytest.raises(ValueError, match="1 usable pairs; at least 4 are needed"):
        ecif.compute_influence(embedded_dataset[:1], overwrite=True, **stored)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captions_in_other_languages_and_of_any_length_are_scored(pair_dataset):
    captions = pair_dataset.values("caption")
    captions[:8] = [
        "красный круг",
        "红色的圆圈",
        "دائرة حمراء",
        "🔴",
        "x",
        "<b>_*{}",
        "a red circle " * 200,
        "0" * 5000,
    ]
    pair_dataset.set_values("caption", captions)
    results = ecif.compute_influence(
        pair_dataset, "caption", model="ecif-tiny", rounds=1, batch_size=20, progress=False, num_workers=0
    )
    probability = np.array(pair_dataset.values("ecif_misalignment"), dtype=float)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert results.health["truncated_captions"] == 2
    assert any("2 captions are longer" in note for note in results.warnings)
