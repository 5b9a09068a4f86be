"""Every family of open_clip's models: what is loaded, edited, saved and loaded again is one model all the way.

That head times features is the model's own embedding is proved for the same families in ``test_contrastive.py``.
"""

import warnings

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from fiftyone_ecif.models import load_model
from tests.models.test_contrastive import TEXTS, edited
from tests.support.models import FAMILIES, image_size

PREPROCESS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear", "resize_mode": "longest"}


@pytest.fixture
def image():
    return Image.effect_noise((90, 40), 80).convert("RGB")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_model_is_one_folder_for_open_clip_and_for_us(make_model, tmp_path, image, family):
    drawn = make_model(family)  # its projections' biases are not zero
    torch.save(drawn.model.state_dict(), tmp_path / "given.pt")
    model = load_model(f"tiny-{family}", tmp_path / "given.pt", preprocess=PREPROCESS)
    head, tokens = edited(model.head(), model), model.tokenize(TEXTS)
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
