"""Adapters: fresh ones change nothing until they are trained, those that are there are used."""

import builtins

import pytest
import torch

from fiftyone_ecif.core import LOSSES, Objective, TensorPairs, partitions
from fiftyone_ecif.models import lora_scope, wrap_model
from fiftyone_ecif.models.lora import with_adapters
from tests.support.models import inputs


@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_fresh_adapters_change_nothing_and_training_lowers_the_loss(make_model, family):
    model = make_model(family)
    with torch.no_grad():
        for name, value in model.model.named_parameters():
            if name.endswith("bn3.weight"):  # open_clip starts these at zero, which cuts the branch off
                value.fill_(0.5)
    images, tokens = (given.to(dtype) for given, dtype in zip(inputs(model, 16), (torch.float32, torch.int64)))
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    adapted = with_adapters(model.model, images[:1], tokens[:1], rank=2, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(adapted.encode_image(images), model.model.encode_image(images))
        torch.testing.assert_close(adapted.encode_text(tokens), model.model.encode_text(tokens))
    pairs = TensorPairs(images, tokens)
    objective = Objective(pairs, partitions(16, 8, 1, 0), LOSSES["clip"])
    at_start = objective.value(lora_scope(model, pairs, rank=2, training_steps=0))
    trained = lora_scope(model, pairs, rank=2, training_steps=8, batch_size=8)
    assert objective.value(trained) < at_start
    gradient = trained.split(objective.value_and_gradient(trained)[1])
    assert all(part.norm() > 0 for part in gradient.values())  # both halves of every adapter
    torch.manual_seed(7)  # the adapters' own seed counts, not the global one
    again = lora_scope(model, pairs, rank=2, training_steps=8, batch_size=8)
    torch.testing.assert_close(trained.vector(), again.vector())
    torch.testing.assert_close(dict(model.model.state_dict()), before, atol=0, rtol=0)


def test_adapters_that_are_there_are_used_as_they_are(make_model):
    model = make_model("vit")
    images, tokens = inputs(model, 2)
    adapted = with_adapters(model.model, images, tokens, rank=3, seed=0)
    scope = lora_scope(wrap_model(adapted, model.preprocess, model.tokenizer, name="adapted"), None)
    assert all("lora_" in name for name in scope.parameters if name != "logit_scale")
    assert {value.shape[0] for name, value in scope.parameters.items() if "lora_A" in name} == {3}


def test_without_peft_the_message_says_what_to_install(make_model, monkeypatch):
    real = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    model = make_model("vit")
    with pytest.raises(ImportError, match=r"pip install fiftyone-ecif\[lora\]"):
        lora_scope(model, TensorPairs(*inputs(model, 2)))


def test_a_rank_below_one_is_refused(make_model):
    model = make_model("vit")
    with pytest.raises(ValueError, match="rank"):
        lora_scope(model, TensorPairs(*inputs(model, 2)), rank=0)
