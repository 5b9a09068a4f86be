"""What differs on a GPU, without one: fake tensors on "cuda", memory that runs out, float16 that overflows."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import fiftyone_ecif.features.towers as towers_module
from fiftyone_ecif.features.towers import Towers, _collate
from fiftyone_ecif.models import ViewAveraged, wrap_model


@pytest.fixture
def towers(model):
    return Towers(model, model.head(), model.fingerprint, 4, 0, 12)


def moved(module, dtype):
    """A module whose tensors become fake ones on a GPU; to be called in a FakeTensorMode."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, value in tensors.items():
                if value is not None:
                    to = dtype if value.is_floating_point() else value.dtype
                    fake = torch.empty(value.shape, dtype=to, device="cuda")
                    tensors[name] = torch.nn.Parameter(fake, False) if tensors is part._parameters else fake
    return module


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # autocast says so, and the rest runs as it is
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("views", [False, True])
def test_nothing_of_a_batch_meets_on_two_devices(loaded, dtype, views):
    module, head, tokens = copy.deepcopy(loaded.model), loaded.head(), loaded.tokenize(["a dog", "a cat"])
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu = wrap_model(moved(module, dtype), loaded.preprocess, loaded.tokenizer, name="on-gpu")
        assert on_gpu.device.type == "cuda"
        towers = Towers(ViewAveraged(on_gpu) if views else on_gpu, head, "fingerprint", 4, 0, 12)
        assert towers._casts == (dtype == torch.float32)
        images = torch.empty(2, 3, 32, 32).to(on_gpu.device, non_blocking=True)
        for tower, batch, weight in (
            (towers.model.image_features, images, towers.head.image_weight),
            (towers.model.text_features, torch.empty_like(tokens, device="cuda"), towers.head.text_weight),
        ):
            features = towers._fitting(tower, batch)
            assert features.device.type == "cuda" and features.dtype == torch.float32
            assert (features @ weight.T).shape == (2, weight.shape[0])


def test_a_batch_that_finds_no_memory_is_halved_until_it_does(towers):
    sizes = []

    def tower(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return 2.0 * batch

    batch = torch.arange(10.0)[:, None]
    assert torch.equal(towers._features(tower, batch), 2 * batch)
    assert sizes == [10, 5, 3, 2, 5, 3, 2]
    with pytest.raises(torch.OutOfMemoryError):
        towers._features(lambda batch: tower(torch.empty(9, 1)), batch)


def test_what_overflows_in_float16_is_computed_again_in_float32(towers, monkeypatch):
    monkeypatch.setattr(Towers, "_casts", True)
    monkeypatch.setattr(Towers, "_autocast", lambda self: nullcontext())
    calls = []

    def tower(batch):
        calls.append(len(batch))
        return (300 * batch).half().float() if len(calls) == 1 else 300 * batch

    batch = torch.tensor([[1.0], [1000.0], [2.0]])
    assert towers._features(tower, batch).flatten().tolist() == [300.0, 300_000.0, 600.0]
    assert calls == [3, 1]


def test_the_trial_of_batch_sizes_runs_on_the_device(model, monkeypatch):
    seen = []
    monkeypatch.setattr(towers_module, "fastest_batch_size", lambda name, device, forward, images: forward(3))
    monkeypatch.setattr(type(model), "image_features", lambda self, images: seen.append(images) or images)
    monkeypatch.setattr(type(model), "device", torch.device("meta"))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: self)
    monkeypatch.setattr(Towers, "_casts", False)
    monkeypatch.setattr(type(model.head()), "to", lambda self, device: self)
    towers = Towers(model, model.head(), "fingerprint", None, 0, 12)
    assert towers.batch_size.shape == (3, 3, 32, 32) and seen[0].device.type == "meta"


def test_a_batch_without_a_good_image_is_none():
    assert _collate([(b"a", "image file is empty", False)]) == ([], None, [], [(b"a", "image file is empty")])
