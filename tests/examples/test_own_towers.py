"""The recipe for towers of one's own, on tiny ones."""

import csv
import sys

import open_clip
import pytest
import torch

from benchmarks.data.pairs_file import pairs_from_csv
from examples import own_towers
from fiftyone_ecif.features import read_image
from fiftyone_ecif.models import load_model
from tests.support import timm_towers  # noqa: F401  registers tiny towers with timm
from tests.support.tokenizers import write_tokenizer


@pytest.fixture
def asked(tmp_path, pair_rows, monkeypatch):
    """A tiny image tower, a tiny text encoder in a folder, and generated pairs."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    encoder = tmp_path / "encoder"
    write_tokenizer(encoder, "plain")
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(encoder)  # fmt: skip
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "caption", "misaligned"])
        writer.writerows([filepath, caption, ""] for filepath, caption, _ in pair_rows)
    return own_towers.OwnTowers(
        tmp_path / "pairs.csv", tmp_path / "towers", "tiny_convnext", str(encoder), image_size=32, context_length=8,
        dimension=12, epochs=3,
    )  # fmt: skip


def test_the_towers_keep_their_weights_and_the_folder_is_an_ordinary_one(asked):
    torch.manual_seed(0)
    model = own_towers.pretrained_towers(asked, pretrained=False)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    table, _ = pairs_from_csv(asked.pairs)
    own_towers.train_projections(model, table, asked)

    name = f"local-dir:{asked.folder}"
    theirs, _, preprocess = open_clip.create_model_and_transforms(name)
    weights = theirs.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, weights[name])}
    assert changed == {"visual.head.proj.weight", "visual.head.proj.bias", "text.proj.weight", "logit_scale"}
    loaded = load_model(name)
    image = preprocess(read_image(table.filepaths[0]))[None]
    torch.testing.assert_close(loaded.preprocess(read_image(table.filepaths[0]))[None], image)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.image_features(image) @ loaded.head().image_weight.T, theirs.eval().encode_image(image)
        )


def test_pretrained_weights_are_those_that_timm_and_transformers_give(asked, monkeypatch):
    import timm
    import transformers

    trunk, encoder = timm.create_model("tiny_convnext"), transformers.AutoConfig.from_pretrained(asked.encoder)
    encoder = transformers.AutoModel.from_config(encoder)
    fetched = []

    def create_model(name, pretrained=False, **settings):
        fetched.append((name, pretrained))
        return trunk if pretrained else made(name, **settings)

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda name: encoder)
    model = own_towers.pretrained_towers(asked).model
    assert ("tiny_convnext", True) in fetched
    for given, kept in ((trunk, model.visual.trunk), (encoder, model.text.transformer)):
        weights = given.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in kept.state_dict().items())


def test_a_tower_that_lacks_weights_is_refused():
    with pytest.raises(ValueError, match="has no bias, weight"):
        own_towers.copy_weights(torch.nn.ReLU(), torch.nn.Linear(2, 2))


def test_the_command_says_how_the_model_is_used(asked, monkeypatch, capsys):
    real = own_towers.pretrained_towers
    monkeypatch.setattr(own_towers, "pretrained_towers", lambda asked: real(asked, pretrained=False))
    options = {"pairs": asked.pairs, "folder": asked.folder, "image-tower": asked.image_tower,
               "encoder": asked.encoder, "image-size": 32, "context-length": 8, "epochs": 1}  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["own_towers", *(f"--{name}={value}" for name, value in options.items())])
    own_towers.main()
    assert f'model="local-dir:{asked.folder}"' in capsys.readouterr().out
    assert load_model(f"local-dir:{asked.folder}").head().image_weight.shape[0] == 384
