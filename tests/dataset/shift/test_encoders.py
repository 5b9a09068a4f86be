"""The encoders of a shift run: a model's towers, a sentence encoder, somebody's own, and the published pair."""

import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.shift import embed as module
from fiftyone_ecif.models import encoders
from fiftyone_ecif.shift import Comparison, TensorVectors
from tests.support.models import EMBED, families, make_model, write_hugging_face_tower  # noqa: F401
from tests.support.tokenizers import write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def halves(pair_dataset):
    """The generated pairs, of which the first half is the reference, with a response to the caption."""
    captions = pair_dataset.values("caption")
    pair_dataset.set_values("response", [caption.replace("a ", "one ") for caption in captions])
    ids = pair_dataset.values("id")
    return pair_dataset, pair_dataset.select(ids[:30]), pair_dataset.select(ids[30:])


QUICK = dict(resamples=5, progress=False)


def unit_images(model, view):
    images = torch.stack([model.preprocess(ecif_image) for ecif_image in map(opened, view.values("filepath"))])
    with torch.no_grad():
        return model.image_features(images) @ model.head().image_weight.T


def opened(path):
    from fiftyone_ecif.features import read_image

    return read_image(path)


def test_a_models_towers_read_images_and_texts_once(monkeypatch, halves, make_model):  # noqa: F811
    dataset, first, second = halves
    model = make_model("vit")
    texts = dict(query_field="caption", response_field="response", reference_field="caption")
    found = ecif.compute_shift(first, second, model=model, **texts, **QUICK).scenario()
    expected = Comparison.of(*(TensorVectors(unit_images(model, view)) for view in (first, second))).value
    assert found.image.estimate.value == pytest.approx(expected, abs=1e-5)
    with torch.no_grad():
        texts_of = [model.text_features(model.tokenize(view.values("caption"))) for view in (first, second)]
    projected = (TensorVectors(part @ model.head().text_weight.T) for part in texts_of)
    assert found.query.estimate.value == pytest.approx(Comparison.of(*projected).value, abs=1e-5)

    def never(*arguments, **named):
        raise AssertionError("a tower was run again")

    monkeypatch.setattr(model, "image_features", never)
    monkeypatch.setattr(model, "text_features", never)
    again = ecif.compute_shift(first, second, model=model, run_key="again", **texts, **QUICK).scenario()
    assert again.image == found.image and again.emid == found.emid


def test_texts_alone_are_compared_without_their_images(halves, make_model):  # noqa: F811
    dataset, first, second = halves
    dataset.set_values("filepath", [f"/nowhere/{number}.png" for number in range(60)])
    asked = dict(image=False, query_field="caption", **QUICK)
    found = ecif.compute_shift(first, second, model=make_model("vit"), **asked)
    assert found.scenario().image is None and found.scenario().count == 30
    own = ecif.compute_shift(first, second, run_key="own", text_encoder=by_letters, **asked)
    assert own.config.model is None and own.config.text_encoder == "function"
    assert own.scenario().query.estimate.value > 0


def by_letters(texts):
    """Counts of letters: an encoder of somebody's own."""
    return [[text.count(letter) + 0.1 for letter in "abcdefgh"] for text in texts]


def test_images_that_cannot_be_read_are_left_out(halves, make_model):  # noqa: F811
    dataset, first, second = halves
    dataset.set_values("filepath", {second.values("id")[0]: "/nowhere.png"}, key_field="id")
    found = ecif.compute_shift(first, second, model=make_model("vit"), **QUICK)
    assert found.scenario().count == 29 and list(found.skipped.values()) == ["image file is missing"]


@pytest.mark.parametrize("layer", ["last", "embedding"])
def test_the_mean_over_tokens_is_that_of_the_layer(tmp_path, layer):
    write_hugging_face_tower(tmp_path)
    write_tokenizer(tmp_path, "roberta")
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    model.save_pretrained(tmp_path)
    encoder = encoders.TokenMean(str(tmp_path), layer)
    found = encoder.encode(["a red cat", "dog"])
    for text, row in zip(("a red cat", "dog"), found, strict=True):
        given = encoder.tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            states = model(**given, output_hidden_states=True).hidden_states
        expected = states[-1][0].mean(0) if layer == "last" else states[0][0, 1:].mean(0)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
    assert encoder.dim == EMBED and encoder.fingerprint == encoders.TokenMean(str(tmp_path), layer).fingerprint


def test_patch_tokens_are_averaged_without_the_class_token(make_model):  # noqa: F811
    model = make_model("vit")
    patches = encoders.PatchMean(model)
    given = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = patches.image_features(given)
        visual = model.model.visual
        tokens = visual.transformer(visual._embeds(given))
    torch.testing.assert_close(found, tokens[:, 1:].mean(1))
    assert patches.head().image_weight.shape == (32, 32) and patches.fingerprint != model.fingerprint
    with pytest.raises(ValueError, match="no patch tokens"):
        encoders.PatchMean(make_model("resnet"))


def test_the_published_pair_is_these_two(monkeypatch, halves, make_model, tmp_path):  # noqa: F811
    loaded = []

    def load(name, pretrained=None, device="cpu"):
        loaded.append((name, pretrained))
        return make_model("vit")

    def texts(name, layer, device):
        loaded.append((name, layer))
        return encoders.GivenEncoder(by_letters)

    monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr(module, "TokenMean", texts)
    _, first, second = halves
    found = ecif.compute_shift(first, second, query_field="caption", model="emi-published", **QUICK)
    assert loaded == [("ViT-B-32-quickgelu", "openai"), ("xlm-roberta-base", "embedding")]
    assert found.config.model.endswith("mean patch token")
    with pytest.raises(ValueError, match="names both encoders"):
        ecif.compute_shift(first, second, model="emi-published", text_encoder=by_letters, overwrite=True, **QUICK)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (5, "must be the name of a text encoder"),
        (lambda texts: torch.ones(2), "must give a vector for each"),
        (int, "cannot read a list of texts"),
        ("/nowhere/at-all", "cannot be loaded"),
    ],
)
def test_what_is_no_encoder_is_refused(halves, encoder, reason):
    _, first, second = halves
    with pytest.raises(ValueError, match=reason):
        ecif.compute_shift(first, second, image=False, query_field="caption", text_encoder=encoder, **QUICK)
