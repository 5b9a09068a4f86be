"""Every family of open_clip's models: what is loaded, edited, saved and loaded again is one model all the way.

That head times features is the model's own embedding is proved for the same families in ``test_contrastive.py``.
"""

import warnings

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from fiftyone_ecif.attribution import Attributed, Settings, compute
from fiftyone_ecif.core import Head
from fiftyone_ecif.features import PairRow, embed_pairs
from fiftyone_ecif.models import load_model
from tests.models.test_contrastive import TEXTS, edited
from tests.support.models import FAMILIES, image_size

PREPROCESS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "resize_mode": "longest"}


@pytest.fixture
def image():
    return Image.effect_noise((90, 40), 80).convert("RGB")


def scored(model, folder) -> Head:
    """The head that a run on twelve pairs fits, as far as the model has a place for it."""
    for number in range(12):
        Image.effect_noise((40 + number, 30), 60).convert("RGB").save(folder / f"{number}.png")
    rows = [PairRow(str(number), str(folder / f"{number}.png"), f"a photo of dog {number}") for number in range(12)]
    pairs = embed_pairs(model, rows, folder / "features", num_workers=0)
    settings = Settings(rounds=1, batch_size=6, anchor=1.0, max_iterations=3)
    outcome = compute(Attributed.of_head(model.head(), pairs, None), model.loss, settings)
    assert len(pairs) == 12 and outcome.scores.value.isfinite().all()
    fitted, own = outcome.scopes[0], model.head()
    image, text = (
        getattr(fitted if tower.name else own, name)
        for tower, name in ((model.image, "image_weight"), (model.text, "text_weight"))
    )
    return Head(image, text, fitted.logit_scale, fitted.logit_bias)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_model_is_one_folder_for_open_clip_and_for_us(make_model, tmp_path, image, family):
    drawn = make_model(family)  # its projections' biases are not zero
    torch.save(drawn.model.state_dict(), tmp_path / "given.pt")
    model = load_model(f"tiny-{family}", tmp_path / "given.pt", preprocess=PREPROCESS)
    tokens = model.tokenize(TEXTS)
    head = edited(scored(model, tmp_path), model)
    seen = model.preprocess(image)[None]
    assert seen.shape[-2:] == image_size(model)
    expected = (
        normalize(model.image_features(seen) @ head.image_weight.T, dim=-1),
        normalize(model.text_features(tokens) @ head.text_weight.T, dim=-1),
    )
    model.save_checkpoint(tmp_path / "edited", head)
    name = f"local-dir:{tmp_path / 'edited'}"

    plain, _, preprocess = open_clip.create_model_and_transforms(name)
    assert torch.equal(preprocess(image)[None], seen)
    assert torch.equal(open_clip.get_tokenizer(name)(TEXTS), tokens)
    with torch.no_grad():
        found = plain.eval().encode_image(seen, normalize=True), plain.encode_text(tokens, normalize=True)
    for ours, theirs in zip(expected, found):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = load_model(name)
    assert torch.equal(again.preprocess(image)[None], seen) and torch.equal(again.tokenize(TEXTS), tokens)
    assert again.loss == model.loss
    for part in ("image_weight", "text_weight", "logit_scale", "logit_bias"):
        ours, theirs = getattr(head, part), getattr(again.head(), part)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert torch.equal(again.image_features(seen), model.image_features(seen))
    assert torch.equal(again.text_features(tokens), model.text_features(tokens))
