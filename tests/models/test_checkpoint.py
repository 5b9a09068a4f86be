"""Training files are read as they are, and nothing in a file is ever executed."""

import json
import pickle
from collections import OrderedDict
from contextlib import suppress

import open_clip
import pytest
import torch

from fiftyone_ecif.models import load_model
from tests.support.models import FAMILIES

PLAIN = pytest.mark.filterwarnings("ignore:How the images")
KNOWN = {"mean": (0.5, 0.5, 0.5)}  # any preprocessing that is told: nothing is to be said of it


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


class Module(torch.nn.Module):
    """As Lightning keeps a model: under a name of its own, beside other things."""

    def __init__(self, model):
        super().__init__()
        self.model, self.loss = model, torch.nn.Linear(2, 2)


FILES = {
    "plain": lambda model: model.state_dict(),
    "compiled": lambda model: prefixed("_orig_mod.", model.state_dict()),
    "compiled image tower": lambda model: {
        name.replace("visual.", "visual._orig_mod."): value for name, value in model.state_dict().items()
    },
    "distributed": lambda model: {"epoch": 3, "state_dict": prefixed("module.", model.state_dict())},
    "compiled and distributed": lambda model: {"state_dict": prefixed("module._orig_mod.", model.state_dict())},
    "Lightning": lambda model: {"state_dict": Module(model).state_dict(), "callbacks": {}},
    "under model": lambda model: {"model": model.state_dict(), "optimizer": {"step": 3}},
    "under model_state_dict": lambda model: {"model_state_dict": model.state_dict(), "step": 3},
    "with its average": lambda model: prefixed("model.", model.state_dict()) | prefixed("ema.", model.state_dict()),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("family", ["vit", "siglip"])
def test_a_training_programs_file_loads_as_it_is(make_model, tmp_path, family, file):
    model = make_model(family)
    torch.save(FILES[file](model.model), tmp_path / "last.ckpt")
    loaded = load_model(f"tiny-{family}", tmp_path / "last.ckpt", preprocess=KNOWN).model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.model.state_dict().items())


def test_clip_trained_with_the_sigmoid_loss_keeps_its_logit_bias(make_model, tmp_path):
    model = make_model("vit")
    state = model.model.state_dict() | {"logit_bias": torch.tensor(-7.5)}
    torch.save(state, tmp_path / "sigmoid.pt")
    loaded = load_model("tiny-vit", tmp_path / "sigmoid.pt", preprocess=KNOWN)
    assert loaded.loss == "siglip" and loaded.head().logit_bias == -7.5
    loaded.save_checkpoint(tmp_path / "saved")
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}")
    assert plain.logit_bias == -7.5
    assert FAMILIES["vit"].get("init_logit_bias") is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"encoder.weight": torch.ones(2)}, "does not fit tiny-vit.*missing"),
        ({"epoch": 3, "args": {"lr": 0.1}}, "holds no state dict"),
        ({"student.logit_scale": torch.ones(()), "teacher.logit_scale": torch.ones(())}, "holds several models"),
    ],
)
@PLAIN
def test_a_file_of_another_program_names_the_remedy(families, tmp_path, content, complaint):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"{complaint}.*wrap_model"):
        load_model("tiny-vit", tmp_path / "other.pt")


class OnlyTheRestrictedLoaderFails:
    """Unpickles to an empty dictionary; torch's restricted loader raises a TypeError at it."""

    def __reduce__(self):
        return OrderedDict, (), (None, {})


class Marks:
    """Leaves a file behind when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def old_torch(monkeypatch):
    """``torch.load`` as before torch 2.6, which unpickles everything unless it is told not to."""
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: load(*args, **{"weights_only": False, **options}))


@pytest.fixture
def hostile(families, tmp_path, old_torch):
    """A folder that open_clip itself would execute, and the mark that is there afterwards."""
    folder, mark = tmp_path / "hostile", tmp_path / "mark"
    folder.mkdir()
    config = {"model_cfg": open_clip.get_model_config("tiny-vit"), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.save([OnlyTheRestrictedLoaderFails(), Marks(mark)], folder / "open_clip_pytorch_model.bin")
    return folder, mark


def test_the_payload_works_on_open_clip(hostile):
    """Or the next test would prove nothing."""
    folder, mark = hostile
    with suppress(Exception):
        open_clip.create_model(f"local-dir:{folder}")
    assert mark.exists()


def test_the_weights_of_a_described_folder_are_never_unpickled(hostile):
    folder, mark = hostile
    with pytest.raises(ValueError, match="not unpickled"):
        load_model(f"local-dir:{folder}")
    with pytest.raises(ValueError, match="not unpickled"):
        load_model("tiny-vit", folder / "open_clip_pytorch_model.bin")
    assert not mark.exists()


def test_safe_weights_are_preferred_to_others_in_a_folder(hostile, make_model):
    folder, mark = hostile
    make_model("vit").save_checkpoint(folder)
    assert load_model(f"local-dir:{folder}").head().logit_scale.isfinite()
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
@PLAIN
def test_a_bare_pickle_is_never_unpickled_under_any_name(families, tmp_path, old_torch, suffix):
    mark = tmp_path / "mark"
    (tmp_path / f"model{suffix}").write_bytes(pickle.dumps([OnlyTheRestrictedLoaderFails(), Marks(mark)]))
    with pytest.raises(ValueError, match="The checkpoint"):
        load_model("tiny-vit", tmp_path / f"model{suffix}")
    assert not mark.exists()
