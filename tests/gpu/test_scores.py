"""From features to scores on a GPU: nothing meets what is elsewhere, and the numbers are those of a CPU."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fiftyone_ecif.attribution import Attributed, FittedPairs, Settings, compute, estimate_removal, verify_removal
from fiftyone_ecif.attribution.objectives import TARGET, mean_loss
from fiftyone_ecif.attribution.trace_tables import TraceTables
from fiftyone_ecif.core import LOSSES, Head, TensorPairs, losses
from fiftyone_ecif.core.query_gradient import query_gradient
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import find_misaligned
from fiftyone_ecif.models import lora_scope, parameter_scope
from tests.support.models import inputs

KINDS = ["clip", "siglip"]
SETTINGS = Settings(rounds=2, batch_size=6, anchor=3.0)
CLOSE = dict(rtol=1e-4, atol=1e-6)


def head_and_pairs(kind="clip", count=24):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(count, 4, generator=generator)
    parts = [torch.cat([shared, torch.randn(count, 3, generator=generator)], dim=1) for _ in range(2)]
    bias = torch.tensor(-1.0) if kind == "siglip" else None
    return Head(*torch.randn(2, 4, 7, generator=generator), torch.tensor(1.5), bias), TensorPairs(*parts)


def first(pairs, count):
    return TensorPairs(*pairs.gather(torch.arange(count)))


def test_the_pretended_device_refuses_what_torch_s_own_fake_device_refuses(gpu):
    a, b = torch.ones(3, 3, device=gpu), torch.ones(3, 3)
    for meet in (torch.add, torch.mm, torch.minimum, lambda x, y: torch.cat([x, y]), lambda x, y: x.copy_(y) + x):
        refused = []
        with FakeTensorMode():
            fake = torch.ones(3, 3, device="cuda"), torch.ones(3, 3)
        for pair in ((a, b), fake):
            try:
                meet(*pair)
                refused.append(False)
            except RuntimeError:
                refused.append(True)
        assert refused[0] == refused[1]
    assert (a + torch.tensor(1.0)).tolist() == [[2.0] * 3] * 3  # a scalar of the CPU is taken, as by a GPU
    assert a[torch.tensor([0, 2])].shape == (2, 3)
    with pytest.raises(TypeError, match=r"Tensor\.cpu"):
        a.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device=gpu, generator=torch.Generator())


def test_a_mask_that_stays_on_the_cpu_would_be_found(gpu, monkeypatch):
    head, pairs = head_and_pairs()
    monkeypatch.setattr(losses, "_off_diagonal", lambda matrix: matrix.masked_fill(torch.eye(len(matrix)) > 0, 0.0))
    similarity = head.to(gpu).linearize(*pairs.gather(torch.arange(8))).similarity()
    with pytest.raises(RuntimeError, match="same device"):
        LOSSES["clip"].roles(similarity)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_s_passes_agree_with_torch_s_fake_device(kind):
    """Shapes, dtypes and devices of the loss pass, without numbers."""
    with FakeTensorMode():
        head, pairs = head_and_pairs(kind)
        head = head.to("cuda")
        batch = head.linearize(*pairs.gather(torch.arange(8)))
        similarity = batch.similarity()
        cotangent = LOSSES[kind].similarity_cotangent(similarity)
        gradient = batch.pull_back(batch.cotangent(cotangent[None]))
    for tensor in (similarity, cotangent, gradient):
        assert tensor.device.type == "cuda" and tensor.dtype == torch.float32
    assert gradient.shape == (1, head.size)


@pytest.mark.parametrize("score_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("with_target", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_head_are_those_of_a_cpu(gpu, kind, with_target, score_dtype):
    head, pairs = head_and_pairs(kind)
    attributed = Attributed.of_head(head, pairs, first(pairs, 12) if with_target else None)
    here = compute(attributed, kind, SETTINGS, "cpu")
    there = compute(attributed, kind, SETTINGS, "cuda", score_dtype=score_dtype)
    assert there.solutions.device.type == there.scopes[0].vector().device.type == "cpu"
    for name, mine in vars(here.scores).items():
        theirs = getattr(there.scores, name)
        assert theirs.device.type == "cpu"
        if score_dtype is not None and name.startswith("value"):
            assert not torch.equal(mine, theirs)
            torch.testing.assert_close(theirs, mine, rtol=0, atol=0.1 * here.scores.value.abs().max().item())
        else:
            torch.testing.assert_close(theirs, mine, **CLOSE)


def test_removals_and_traces_of_a_head_are_those_of_a_cpu(gpu, tmp_path):
    head, pairs = head_and_pairs()
    removed = torch.arange(24) < 3
    found = []
    for device in ("cpu", gpu):
        attributed = Attributed.of_head(head.to(device), pairs, pairs)
        anchored = FittedPairs.restore(attributed, attributed.scope.vector(), "clip", 1.0, SETTINGS)
        fitted = anchored.at_rest()

        def evaluate(scope):
            return {"target_loss": mean_loss(pairs, "clip", SETTINGS, TARGET).value(scope)}

        predicted, moved = estimate_removal(fitted, removed, evaluate, newton_steps=2)
        measured = verify_removal(fitted, removed, evaluate)
        tables = TraceTables.build(tmp_path / str(device)[:4], fitted.objective, fitted.scope, "exact")
        image, text = pairs.gather(torch.arange(6))
        target, gradient = query_gradient(fitted.scope, image[:1], text, torch.arange(6) == 2)
        assert query_gradient(tables.head, image[:1], text, torch.arange(6) == 2)[0] == pytest.approx(target, rel=1e-4)
        assert len(gradient.dense(fitted.scope)) == 1
        traced = tables.values(query_gradient(tables.head, image[:1], text, torch.arange(6) == 2)[1]).value
        found.append([predicted.predicted, measured.measured, moved.vector().cpu(), traced.cpu()])
    for mine, theirs in zip(*found, strict=True):
        if isinstance(mine, dict):
            assert theirs == pytest.approx(mine, rel=1e-4)
        else:
            torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-3 * mine.abs().max().item())


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_misalignment_is_that_of_a_cpu(gpu, kind, labelled):
    head, pairs = head_and_pairs(kind, 80)
    if labelled:
        pairs = LabelledPairs(pairs, [f"label {row % 4}" for row in range(80)])
    settings = Settings(rounds=2, batch_size=20, anchor=1.0)
    views = None if labelled else TensorPairs(pairs.image * 1.01, pairs.text)
    trusted = torch.arange(80) < 3
    here, there = (
        find_misaligned(pairs, views, head, kind, settings, device, trusted=trusted) for device in ("cpu", gpu)
    )
    np.testing.assert_allclose(there[0].probability, here[0].probability, atol=1e-4)
    torch.testing.assert_close(there[1].surprise, here[1].surprise, **CLOSE)


def float32_inputs(model, count, seed):
    images, tokens = inputs(model, count, seed)
    return TensorPairs(images.float(), tokens)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_scores_inside_the_towers_are_those_of_a_cpu(gpu, make_model, kind):
    model = make_model("resnet" if kind == "full" else "vit")
    pairs, target = float32_inputs(model, 8, 5), float32_inputs(model, 4, 9)
    if kind == "full":
        scope = parameter_scope(model, r"^visual\.attnpool|^text_projection|^logit_scale", 2)
    else:
        scope = lora_scope(model, pairs, rank=2, training_steps=1, batch_size=4)
    attributed = Attributed(scope, pairs, target, fit_steps=1, probes=2)
    settings = Settings(rounds=1, batch_size=4, anchor=10.0, max_iterations=2)
    here, there = (compute(attributed, "clip", settings, device) for device in ("cpu", "cuda"))
    for name, mine in vars(here.scores).items():
        theirs = getattr(there.scores, name)
        scale = mine.abs().nan_to_num().max().item()
        torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)
