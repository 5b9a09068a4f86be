"""What is in the caches is used as it is; what is not is refused at once without a network, never retried."""

import json
import socket
import threading
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants

from fiftyone_ecif.models import hub, load_model
from tests.models.test_checkpoint import Marks, OnlyTheRestrictedLoaderFails, old_torch  # noqa: F401
from tests.support.hub import empty_hub, no_network, put_into_cache  # noqa: F401
from tests.support.tokenizers import write_tokenizer

HUBS = "hf-hub:someone/model"


@pytest.fixture
def cache(no_network, tmp_path):  # noqa: F811
    """The folder of a hub's cache that is empty so far."""
    return tmp_path / "hub"


@pytest.fixture
def stored(make_model, cache, tmp_path):
    """A model in that cache, as it was put there."""
    model = make_model("vit")
    model.save_checkpoint(tmp_path / "model")
    put_into_cache(cache, "someone/model", tmp_path / "model")
    return model


@pytest.mark.parametrize(
    ("name", "pretrained", "missing"),
    [
        ("ViT-B-32", "laion2b_s34b_b79k", "weights 'laion2b_s34b_b79k' of ViT-B-32"),
        ("ViT-B-16-SigLIP", "webli", "tokenizer 'timm/ViT-B-16-SigLIP' of ViT-B-16-SigLIP"),
        ("ViT-L-14-CLIPA", None, "tokenizer 'bert-base-uncased' of ViT-L-14-CLIPA"),
        ("roberta-ViT-B-32", None, "text tower 'roberta-base'"),
        ("mt5-base-ViT-B-32", None, "text tower 'google/mt5-base'"),
        (HUBS, None, f"description of {HUBS}"),
    ],
)
@pytest.mark.parametrize("local_files_only", [False, True])
def test_what_cannot_be_had_is_said_before_anything_is_built(
    no_network, monkeypatch, name, pretrained, missing, local_files_only  # noqa: F811
):  # fmt: skip
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **options: pytest.fail("built too early"))
    with pytest.raises(ConnectionError, match=f"{missing}.*cannot be found on this machine.*local-dir:.*wrap_model"):
        load_model(name, pretrained, local_files_only=local_files_only)
    assert len(no_network) <= (0 if local_files_only else 1)  # a retry would ask again


def test_the_setting_of_the_hub_is_heeded(no_network, monkeypatch):  # noqa: F811
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE forbids"):
        load_model("ViT-B-16-SigLIP", "webli")
    assert not no_network


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"{url} does not answer"):
            hub.require_network("This", url)


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "_PATIENCE", 0.05)
    given_up, looked_up = threading.Event(), []

    def look_up(*args, **options):
        given_up.wait(2)
        looked_up.append(args)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(ConnectionError, match="does not answer"):
        hub.require_network("This", "https://nowhere.invalid")
    assert not looked_up
    given_up.set()


def test_with_a_network_what_is_missing_is_downloaded(stored, cache, tmp_path, monkeypatch):
    (weights,) = cache.rglob("open_clip_model.safetensors")
    moved = weights.rename(tmp_path / weights.name)
    monkeypatch.setattr(hub, "_answers", lambda url: True)
    asked = []
    download = lambda repository, filename: asked.append((repository, filename)) or str(moved)  # noqa: E731
    monkeypatch.setattr(hub, "download_pretrained_from_hf", download)
    loaded = load_model(HUBS)
    assert asked == [("someone/model", "open_clip_pytorch_model.bin")]
    assert torch.equal(loaded.model.visual.proj, stored.model.visual.proj)
    with pytest.raises(ConnectionError, match="The weights of hf-hub:someone/model cannot be found on this machine"):
        load_model(HUBS, local_files_only=True)


def test_a_model_in_the_cache_needs_no_network(stored, no_network):  # noqa: F811
    loaded = load_model(HUBS, local_files_only=True)
    assert (loaded.name, loaded.pretrained) == (HUBS, None)
    assert torch.equal(loaded.model.visual.proj, stored.model.visual.proj)
    assert load_model(HUBS).fingerprint == loaded.fingerprint
    assert not no_network


def test_the_weights_of_a_tag_come_from_the_cache(make_model, cache, no_network, monkeypatch, tmp_path):  # noqa: F811
    model = make_model("vit")
    model.save_checkpoint(tmp_path / "weights" / "open_clip_model.safetensors")
    put_into_cache(cache, "someone/tagged", tmp_path / "weights")
    entry = {"hf_hub": "someone/tagged/", "mean": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-vit", {"tag": entry})
    loaded = load_model("tiny-vit", "tag")
    assert loaded.pretrained == "tag"
    assert loaded.model.visual.preprocess_cfg["mean"] == (0.5, 0.5, 0.5)
    assert loaded.model.visual.preprocess_cfg["resize_mode"] == "squash"
    assert torch.equal(loaded.model.visual.proj, model.model.visual.proj)
    assert not no_network


def test_the_weights_of_the_hub_are_never_unpickled(stored, cache, old_torch, tmp_path):  # noqa: F811
    (weights,) = cache.rglob("open_clip_model.safetensors")
    weights.unlink()
    mark = tmp_path / "mark"
    payload = [OnlyTheRestrictedLoaderFails(), Marks(mark)]
    torch.save(payload, weights.with_name("open_clip_pytorch_model.bin"))
    with pytest.raises(ValueError, match="not unpickled"):
        load_model(HUBS)
    assert not mark.exists()


def test_a_text_tower_and_its_tokenizer_come_from_the_cache(families, cache, no_network, tmp_path):  # noqa: F811
    tower = Path(open_clip.get_model_config("tiny-hf-linear")["text_cfg"]["hf_model_name"])
    write_tokenizer(tmp_path / "tokenizer", "roberta")
    put_into_cache(cache, "someone/tower", tower)
    put_into_cache(cache, "someone/tokenizer", tmp_path / "tokenizer")
    config = open_clip.get_model_config("tiny-hf-linear")
    config["text_cfg"] |= {"hf_model_name": "someone/tower", "hf_tokenizer_name": "someone/tokenizer"}
    (tmp_path / "tiny-of-the-hub.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-of-the-hub.json")
    loaded = load_model("tiny-of-the-hub")
    assert loaded.tokenize(["a cat"])[0, :4].tolist() == [0, 4, 7, 2]
    assert not no_network


def test_a_folder_without_its_tokenizer_says_so(make_model, tmp_path, no_network):  # noqa: F811
    make_model("siglip").save_checkpoint(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="holds no tokenizer that can be read"):
        load_model(f"local-dir:{tmp_path}")
    assert not no_network
