import warnings
from functools import partial

import numpy as np
import open_clip
import pytest
import torch

import fiftyone_ecif as ecif
from fiftyone_ecif.attribution import Attributed
from fiftyone_ecif.dataset import chosen_scope as scopes
from fiftyone_ecif.dataset.ask import removal_study
from fiftyone_ecif.models import load_model

HEAD_NAMES = r"^visual\.proj$|^text_projection$"


def saved_model(path, seed=0):
    """A checkpoint of random weights."""
    torch.manual_seed(seed)
    load_model("ecif-tiny-vit").save_checkpoint(path)
    return path


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_predicted_and_refitted_effects_agree(embedded_dataset, stored):
    """Removing the planted pairs must lower the target loss, in the prediction as in the refit."""
    results = ecif.compute_influence(embedded_dataset[:45], target=embedded_dataset[45:59], **stored)
    effect = results.verify_removal(embedded_dataset[:3], progress=False)
    assert effect.removed == 3
    predicted, measured = (
        figures["target_loss"] - effect.before["target_loss"] for figures in (effect.predicted, effect.measured)
    )
    assert abs(measured) > 1e-5
    assert predicted == pytest.approx(measured, rel=0.3)
    assert 0 <= effect.measured["recall_at_1"] <= 1
    estimate = results.estimate_removal(embedded_dataset[:3], progress=False)
    assert estimate.predicted == effect.predicted and estimate.measured is None


def test_values_agree_with_the_estimates_of_removing_single_pairs(embedded_dataset, stored):
    """The fields are the first order of what estimate_removal computes in full: same sign, same order."""
    results = ecif.compute_influence(embedded_dataset[:45], target=embedded_dataset[45:], **stored)
    singles = [embedded_dataset[row : row + 1] for row in range(0, 45, 4)]
    effects = [results.estimate_removal(single, progress=False) for single in singles]
    changes = [effect.predicted["target_loss"] - effect.before["target_loss"] for effect in effects]
    values = [single.values("ecif_value")[0] for single in singles]
    assert np.corrcoef(values, changes)[0, 1] > 0.8
    assert np.mean(np.sign(values) == np.sign(changes)) > 0.8


def test_a_forecast_is_the_estimate_of_each_group(embedded_dataset, stored):
    for samples, target in ((embedded_dataset[:45], embedded_dataset[45:]), (embedded_dataset, None)):
        results = ecif.compute_influence(samples, target=target, **stored, overwrite=True)
        forecast = results.forecast_removal(points=3, progress=False)
        assert forecast.removed == [0, *(round(len(samples) / 5 * part) for part in (1 / 3, 2 / 3, 1))]
        assert set(forecast.predicted) == {"target_loss", "recall_at_1", "recall_at_5"}
        before, *losses = forecast.predicted["target_loss"]
        for count, loss in zip(forecast.removed[1:], losses):
            effect = results.estimate_removal(results.harmful(limit=count), progress=False)
            assert before == pytest.approx(effect.before["target_loss"])
            expected = effect.predicted["target_loss"] - effect.before["target_loss"]
            assert loss - before == pytest.approx(expected, rel=1e-4)
    within = results.harmful(limit=30).match_tags("no such tag")
    with pytest.raises(ValueError, match="nothing to remove"):
        results.forecast_removal(within)


def test_cross_fitted_runs_and_labels_are_judged_too(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **(stored | dict(text_field="ground_truth")))
    effect = results.verify_removal(results.harmful(limit=6), progress=False)
    assert effect.removed == 6
    assert set(effect.before) == {"target_loss", "zero_shot_accuracy"} == set(effect.measured)


def test_nothing_and_everything_are_refused_and_large_groups_warned_of(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset[:30], **stored)
    with pytest.raises(ValueError, match="nothing to remove"):
        results.estimate_removal(embedded_dataset[30:], progress=False)
    with pytest.raises(ValueError, match="fewer than two"):
        results.estimate_removal(embedded_dataset, progress=False)
    effect = results.estimate_removal(embedded_dataset[:15], progress=False)
    assert any("error of one step grows" in note for note in effect.warnings)
    with pytest.raises(ValueError, match="stored embeddings"):
        results.edited_checkpoint(embedded_dataset[:3], "edited.pt")


def test_changed_data_is_noticed(embedded_dataset, stored):
    results = ecif.compute_influence(embedded_dataset, **stored)
    embedded_dataset.delete_samples(embedded_dataset[:2])
    with pytest.raises(ValueError, match="has changed since"):
        results.estimate_removal(embedded_dataset[:3], progress=False)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_edited_checkpoint_loads_in_plain_open_clip_and_differs(pair_dataset, tmp_path, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        base = tmp_path / "base.pt"
        load_model("ecif-tiny").save_checkpoint(base)
    results = ecif.compute_influence(
        pair_dataset, "caption", model="ecif-tiny", pretrained=str(base), rounds=1, batch_size=20, num_workers=0,
        progress=False,
    )  # fmt: skip
    path = results.edited_checkpoint(pair_dataset[:6], str(tmp_path / f"edited{suffix}"), progress=False)
    edited = open_clip.create_model("ecif-tiny", pretrained=path)
    given = open_clip.create_model("ecif-tiny", pretrained=str(base))
    changed = {name for name, value in edited.state_dict().items() if not torch.equal(value, given.state_dict()[name])}
    assert "text_projection" in changed and "logit_scale" in changed
    assert not any(name.startswith(("transformer", "visual.layer", "token_embedding")) for name in changed)
    image = torch.rand(2, 3, 32, 32)
    assert np.isfinite(edited.encode_image(image).detach().numpy()).all()
    with pytest.MonkeyPatch.context() as patched, pytest.raises(ValueError, match="pass overwrite=True"):
        patched.setattr(removal_study, "estimate_removal", lambda *args: pytest.fail("solved before it was refused"))
        results.edited_checkpoint(pair_dataset[:6], path, progress=False)
    folder = results.edited_checkpoint(pair_dataset[:6], str(tmp_path / "whole"), progress=False)
    described = open_clip.create_model(f"local-dir:{folder}")
    assert torch.equal(described.text_projection, edited.text_projection)
    base.unlink()
    load_model("ecif-tiny").save_checkpoint(base)  # other weights under the same name
    with pytest.raises(ValueError, match="not those of the run"):
        results.edited_checkpoint(pair_dataset[:6], path, progress=False, overwrite=True)


@pytest.mark.parametrize(("scope", "anchor"), [("lora", 2.0), ("full", 500.0)])  # firm: random towers curve a lot
def test_scopes_inside_the_towers_are_predicted_verified_and_written(
    pair_dataset, tmp_path, monkeypatch, scope, anchor
):
    """The prediction agrees with a refit, and the checkpoint written is the very model that was predicted."""
    monkeypatch.setattr(scopes, "ADAPTER_STEPS", 5)
    monkeypatch.setattr(scopes, "Attributed", partial(Attributed, fit_steps=6, probes=1))
    base = saved_model(tmp_path / "base.pt")
    view, target = pair_dataset[:16], pair_dataset[16:30]
    results = ecif.compute_influence(
        view, "caption", target=target, model="ecif-tiny-vit", pretrained=str(base), scope=scope, anchor=anchor,
        rounds=1, batch_size=8, num_workers=0, progress=False,
    )  # fmt: skip
    effect = results.verify_removal(view[:2], progress=False)
    predicted, measured = (
        figures["target_loss"] - effect.before["target_loss"] for figures in (effect.predicted, effect.measured)
    )
    assert abs(measured) > 1e-5
    assert predicted == pytest.approx(measured, rel=0.3)
    path = results.edited_checkpoint(view[:2], str(tmp_path / "edited.pt"), progress=False)
    edited = open_clip.create_model("ecif-tiny-vit", pretrained=path).eval()
    given = open_clip.create_model("ecif-tiny-vit", pretrained=str(base)).eval()
    assert edited.state_dict().keys() == given.state_dict().keys()
    changed = {name for name, value in edited.state_dict().items() if not torch.equal(value, given.state_dict()[name])}
    assert "logit_scale" in changed
    assert any("mlp" in name for name in changed)
    assert any("ln_" in name for name in changed) == (scope == "full")
    again = ecif.compute_influence(
        view, "caption", target=target, run_key="again", model="ecif-tiny-vit", pretrained=path, anchor=1e6, rounds=1,
        batch_size=8, num_workers=0, progress=False,
    )  # fmt: skip
    assert again.health["target_loss"] == pytest.approx(effect.predicted["target_loss"], rel=2e-3)


def test_a_cross_fitted_run_inside_the_towers_is_judged_fold_by_fold(pair_dataset, tmp_path, monkeypatch):
    """Labels and a regular expression; the checkpoint changes only what the expression finds."""
    monkeypatch.setattr(scopes, "Attributed", partial(Attributed, fit_steps=3, probes=1))
    base = saved_model(tmp_path / "base.pt")
    results = ecif.compute_influence(
        pair_dataset[:16], "ground_truth", model="ecif-tiny-vit", pretrained=str(base), scope=HEAD_NAMES, anchor=2.0,
        rounds=1, batch_size=8, num_workers=0, progress=False,
    )  # fmt: skip
    effect = results.estimate_removal(pair_dataset[:4], progress=False)
    assert effect.removed == 4
    assert set(effect.before) == {"target_loss", "zero_shot_accuracy"} == set(effect.predicted)
    path = results.edited_checkpoint(pair_dataset[:4], str(tmp_path / "edited.safetensors"), progress=False)
    states = [open_clip.create_model("ecif-tiny-vit", pretrained=str(file)).state_dict() for file in (path, base)]
    changed = {name for name, value in states[0].items() if not torch.equal(value, states[1][name])}
    assert changed == {"visual.proj", "text_projection", "logit_scale"}
    base.unlink()
    saved_model(base, seed=1)
    with pytest.raises(ValueError, match="not those of the run"):
        results.estimate_removal(pair_dataset[:4], progress=False)
