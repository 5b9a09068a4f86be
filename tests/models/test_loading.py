"""What load_model refuses, and in which words."""

import json
import pickle
from pathlib import Path

import open_clip
import pytest
import torch

from fiftyone_ecif.models import load_model


def test_random_weights_are_announced(families):
    with pytest.warns(UserWarning, match="random weights"):
        load_model("tiny-vit")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"Nearest: .*ViT-B-32\b"):
        load_model("vit_b_32")


def test_slash_in_a_name_is_open_clips_dash(make_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model("vit").save_checkpoint("model.pt")
    assert load_model("tiny/vit", "model.pt").name == "tiny-vit"


def test_unknown_tag_lists_the_models_tags():
    with pytest.raises(ValueError, match=r"neither a file nor a pretrained tag.*laion2b_s34b_b79k"):
        load_model("ViT-B-32", "laion")


def test_missing_checkpoint_is_no_tag(families, tmp_path):
    with pytest.raises(ValueError, match="neither a file nor a pretrained tag of tiny-vit; its tags: none"):
        load_model("tiny-vit", tmp_path / "none.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_checkpoint_of_another_model_names_keys_and_shapes(make_model, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    make_model("resnet").save_checkpoint(path)
    with pytest.raises(ValueError, match=r"does not fit tiny-vit: .*missing.*not of this model"):
        load_model("tiny-vit", path)
    make_model("vit").save_checkpoint(path, overwrite=True)
    state = open_clip.factory.load_state_dict(str(path))
    state["visual.proj"] = state["visual.proj"][:, :5].clone()
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(ValueError, match=r"visual.proj is \(32, 5\), not \(32, 24\)"):
        load_model("tiny-vit", tmp_path / "cut.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_damaged_checkpoint_is_refused(families, tmp_path, suffix, content):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="The checkpoint"):
        load_model("tiny-vit", path)


class _Marks:
    """Leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_checkpoint_is_never_unpickled(families, tmp_path, save):
    path, mark = tmp_path / "model.pt", tmp_path / "mark"
    save({"visual.proj": _Marks(mark)}, path)
    with pytest.raises(ValueError, match="not unpickled"):
        load_model("tiny-vit", path)
    assert not mark.exists()


def test_training_checkpoint_with_nested_state_dict_loads(make_model, tmp_path):
    model = make_model("vit")
    state = {f"module.{name}": value for name, value in model.model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    assert load_model("tiny-vit", tmp_path / "epoch_3.pt").fingerprint == model.fingerprint


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu_is_a_clear_error(families):
    with pytest.raises(ValueError, match="Device 'cuda' is not available"):
        load_model("tiny-vit", device="cuda")


def test_unknown_device_and_precision_are_refused(families):
    with pytest.raises(ValueError, match="Device 'quantum'"):
        load_model("tiny-vit", device="quantum")
    with pytest.raises(ValueError, match="Precision 'fp8'"):
        load_model("tiny-vit", precision="fp8")


def test_loaded_module_is_for_wrap_model(make_model):
    with pytest.raises(ValueError, match="wrap_model"):
        load_model(make_model("vit").model)


def test_weights_that_come_with_the_name_take_no_tag():
    with pytest.raises(ValueError, match="leave pretrained out"):
        load_model("hf-hub:some/model", "openai")


@pytest.fixture
def described(make_model, tmp_path):
    """A folder with a description and the weights of one model, and the checkpoint of another."""
    model, folder = make_model("resnet"), tmp_path / "described"
    folder.mkdir()
    config = {"model_cfg": open_clip.get_model_config("tiny-resnet"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model.save_checkpoint(folder)
    with torch.no_grad():
        model.model.text_projection.mul_(2.0)
    model.save_checkpoint(tmp_path / "other.pt")
    return f"local-dir:{folder}", model, tmp_path / "other.pt"


def test_a_checkpoint_replaces_the_weights_beside_a_description(described):
    name, model, checkpoint = described
    own, other = load_model(name), load_model(name, checkpoint)
    assert torch.equal(2.0 * own.model.text_projection, model.model.text_projection)
    assert torch.equal(other.model.text_projection, model.model.text_projection)
    assert own.fingerprint != other.fingerprint


def test_a_described_model_without_weights_lives_on_a_checkpoint(described):
    name, model, checkpoint = described
    Path(name.removeprefix("local-dir:"), "open_clip_model.safetensors").unlink()
    assert torch.equal(load_model(name, checkpoint).model.text_projection, model.model.text_projection)
    with pytest.raises(ValueError, match="holds no weights"):
        load_model(name)


def test_a_checkpoint_that_does_not_fit_a_description_names_keys(described, make_model, tmp_path):
    make_model("vit").save_checkpoint(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"does not fit local-dir:.*missing.*not of this model"):
        load_model(described[0], tmp_path / "vit" / "open_clip_model.safetensors")


def test_what_open_clip_cannot_make_is_a_clear_error(families):
    with pytest.raises(ValueError, match="open_clip cannot make tiny-sigmoid in bf16"):
        load_model("tiny-sigmoid", precision="bf16")
