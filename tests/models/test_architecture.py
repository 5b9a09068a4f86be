"""What is counted without weights is what the model with weights takes, and what the formula of its layers says."""

import json

import open_clip
import pytest
from torch.utils.flop_counter import FlopCounterMode

from fiftyone_ecif.models.architecture import _counted, architecture
from fiftyone_ecif.models.parameter_scope import attention_by_formula
from tests.support.hub import empty_hub, no_network, put_into_cache  # noqa: F401
from tests.support.models import FAMILIES


def transformer_flop(layers, width, tokens):
    """A layer of width w multiplies, for T tokens, 12 w² T + 2 T² w numbers; each product costs 2 operations."""
    return 2 * layers * (12 * width**2 * tokens + 2 * tokens**2 * width)


def convolutions(stages, width, side):
    """(inputs, outputs, kernel, output side) of each convolution of CLIP's ResNet, its attention pool left out."""
    side //= 2
    yield from ((3, width // 2, 3, side), (width // 2, width // 2, 3, side), (width // 2, width, 3, side))
    side, inputs = side // 2, width
    for stage, blocks in enumerate(stages):
        planes = width * 2**stage
        for block in range(blocks):
            yield from ((inputs, planes, 1, side), (planes, planes, 3, side))
            if block == 0:
                side //= 1 if stage == 0 else 2
                yield inputs, 4 * planes, 1, side  # the shortcut
            yield planes, 4 * planes, 1, side
            inputs = 4 * planes


def test_a_transformers_operations_are_those_of_its_formula():
    counted = architecture("ViT-B-32")
    patches = 2 * 49 * 3 * 32**2 * 768
    assert counted.image_flop == pytest.approx(patches + transformer_flop(12, 768, 50), rel=1e-3)
    assert counted.text_flop == pytest.approx(transformer_flop(12, 512, 77), rel=1e-3)
    assert counted.dims == (512, 768, 512)
    weights = 12 * 12 * (768**2 + 512**2) + 3 * 32**2 * 768 + 49408 * 512
    assert counted.weight_bytes == pytest.approx(4 * weights, rel=0.01)


def test_a_resnets_operations_are_those_of_its_convolutions():
    found = 2 * sum(kernel**2 * inputs * outputs * side**2 for inputs, outputs, kernel, side in
                    convolutions([3, 4, 6, 3], 64, 224))  # fmt: skip
    width, tokens = 2048, 50
    pooling = 2 * (tokens * 3 * width**2 + 2 * tokens**2 * width + tokens * width**2)
    assert architecture("RN50").image_flop == pytest.approx(found + pooling, rel=0.01)


def needs_transformers(family):
    if family.startswith("hf"):
        pytest.importorskip("transformers", "5", reason="masks of earlier releases look at numbers, which meta has not")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_counted_is_what_the_model_with_weights_takes(make_model, images, family):
    needs_transformers(family)
    counted, model = architecture(f"tiny-{family}"), make_model(family)
    head = model.head()
    assert counted.dims == (head.image_weight.shape[0], head.image_weight.shape[1], head.text_weight.shape[1])
    assert counted.weight_bytes == sum(value.nbytes for value in model.model.parameters())
    model.model.requires_grad_(False)  # the hooks of a counter cannot follow a replaced parameter with a gradient
    inputs = images(model, 1), model.tokenize(["a photo"])
    for run, given, flop in zip(
        (model.image_features, model.text_features), inputs, (counted.image_flop, counted.text_flop)
    ):
        # The counter does not know the fused attention of CPUs.
        with attention_by_formula(), FlopCounterMode(display=False) as counter:
            run(given)
        assert flop == counter.get_total_flops() > 0


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "MobileCLIP2-S0"])
def test_towers_of_timm_are_counted(name):
    counted = architecture(name)
    assert 1e9 < counted.image_flop < 1e11 and 1e9 < counted.text_flop < 1e11
    assert 1e8 < counted.weight_bytes < 1e9


@pytest.mark.parametrize("name", ["roberta-ViT-B-32", "no such model", "hf-hub:some/model"])
def test_nothing_is_downloaded_for_a_count(empty_hub, name):  # noqa: F811
    assert architecture(name) is None


def test_a_text_tower_that_was_downloaded_is_counted(empty_hub, tmp_path):  # noqa: F811
    needs_transformers("hf")
    import transformers

    settings = dict(num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, hidden_size=24, vocab_size=40)
    transformers.RobertaConfig(**settings).save_pretrained(tmp_path / "roberta")
    put_into_cache(empty_hub, "roberta-base", tmp_path / "roberta")
    counted = architecture("roberta-ViT-B-32")
    assert counted.dims[0] == open_clip.get_model_config("roberta-ViT-B-32")["embed_dim"]
    assert counted.text_flop > 0


def test_a_model_that_cannot_be_run_without_numbers_is_not_counted(tmp_path):
    vision = {"timm_model_name": "no_such_tower", "timm_model_pretrained": False, "timm_pool": "avg"}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {"width": 16, "heads": 2, "layers": 1}}
    (tmp_path / "tiny-broken.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-broken.json")
    assert architecture("tiny-broken") is None


@pytest.fixture
def not_counted_yet():
    _counted.cache_clear()


def test_counting_logs_nothing(not_counted_yet, caplog):
    assert architecture("ecif-tiny") is not None
    assert not caplog.records


def test_counting_hooks_no_module_of_other_threads(not_counted_yet, monkeypatch):
    for hook in ("register_module_forward_pre_hook", "register_module_forward_hook"):
        monkeypatch.delattr(f"torch.utils.module_tracker.{hook}")
    assert architecture("ecif-tiny") is not None
