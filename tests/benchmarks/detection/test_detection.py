"""The detection benchmark measures what it says: on a cell small enough for slow oracles."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks.detection import cell_data, command
from benchmarks.detection.cell import Cell, Classes, in_memory
from benchmarks.detection.cell_data import CellSettings, cell_of_file, make_cell
from benchmarks.detection.figures import (
    ALL_METHODS,
    CLASS_METHODS,
    Evidence,
    calibration_error,
    evidence,
    figures,
    precision_at,
    suggestion_accuracy,
)
from benchmarks.methods import attribution, self_influence
from fiftyone_ecif.attribution import Settings
from fiftyone_ecif.core import LOSSES, Head, partitions
from fiftyone_ecif.detect.pipeline import SuggestedTexts
from fiftyone_ecif.models import load_model

PAIRS, CLASSES, DIM = 160, 4, 6
NAMES = ["zero", "one", "two", "three"]


def tiny_cell(with_classes=True, seed=0):
    """160 pairs of 4 classes in two wordings, a fifth of them with the text of another class."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, DIM, generator=generator)
    prompts = centres[:, None] + 0.2 * torch.randn(CLASSES, 2, DIM, generator=generator)
    true = torch.arange(PAIRS) % CLASSES
    planted = torch.arange(PAIRS) % 5 == 0
    given = torch.where(planted, (true + 1 + torch.arange(PAIRS) % (CLASSES - 1)) % CLASSES, true)
    wording = torch.arange(PAIRS) // CLASSES % 2
    image = centres[true] + 0.5 * torch.randn(PAIRS, DIM, generator=generator)
    names = [f"{('a', 'one')[w]} {NAMES[c]}" for w, c in zip(wording.tolist(), given.tolist())]
    return Cell(
        pairs=in_memory(image, prompts[given, wording]),
        head=Head.identity(DIM, DIM, 2.0),
        loss="clip",
        captions=names,
        planted=planted.numpy(),
        classes=Classes(NAMES, given.numpy(), true.numpy(), prompts) if with_classes else None,
        views=None,
        trusted=np.zeros(PAIRS, dtype=bool),
        settings={"data": "tiny", "seed": 0},
    )


@pytest.fixture(scope="module")
def cell():
    return tiny_cell()


QUICK = Settings(batch_size=40, rounds=2)
WITHOUT_DATABASE = tuple(name for name in ALL_METHODS if name != "mistakenness")


@pytest.fixture(scope="module")
def found(cell):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_influence, "PROJECTED", 24)
        return evidence(cell, QUICK)


def test_every_method_gives_every_promised_figure(cell, found):
    table = figures(cell, found)
    for name in ALL_METHODS:
        assert found.scores[name].shape == (PAIRS,)
        if name != "normsim":  # which looks at images alone
            assert table[f"auroc.{name}"] > 0.6, f"{name}: higher must mean more suspicious"
        for figure in ("ap", "f1", "precision_at_1pct", "seconds"):
            assert np.isfinite(table[f"{figure}.{name}"])
    assert {"ece", "noise_rate_estimate", "suggestion_accuracy"} <= set(table)


def test_free_captions_leave_the_methods_for_classes_out():
    cell = tiny_cell(with_classes=False)
    found = evidence(cell, QUICK, ("clip_score", "deep_knn", *CLASS_METHODS))
    assert set(found.scores) == set(found.seconds) == {"clip_score", "deep_knn"}


def test_without_truth_nothing_is_claimed_but_what_needs_none(cell, found):
    table = figures(Cell(**{**vars(cell), "planted": None}), found)
    assert not [name for name in table if not name.startswith("seconds.") and name != "noise_rate_estimate"]


def test_a_saved_cell_is_the_cell(cell, tmp_path):
    cell.save(tmp_path / "cell.safetensors")
    again = Cell.load(tmp_path / "cell.safetensors")
    assert again.captions == cell.captions and again.settings == cell.settings
    for ours, theirs in zip(again.embeddings(), cell.embeddings(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again.planted, cell.planted)
    np.testing.assert_array_equal(again.classes.given, cell.classes.given)
    np.testing.assert_array_equal(again.classes.true, cell.classes.true)
    np.testing.assert_array_equal(again.classes.embeddings(again.head), cell.classes.embeddings(cell.head))
    captions = tiny_cell(with_classes=False)
    captions.save(tmp_path / "captions.safetensors")
    assert Cell.load(tmp_path / "captions.safetensors").classes is None


def gradients_of_positive_role(cell, vector, batch):
    """∇pos_n of a batch's pairs by autograd, one by one."""
    vector = vector.clone().requires_grad_()
    head = cell.head.replace(vector)
    image, text = cell.pairs.gather(batch)
    u = torch.nn.functional.normalize(image @ head.image_weight.T, dim=1)
    v = torch.nn.functional.normalize(text @ head.text_weight.T, dim=1)
    similarity = head.logit_scale.exp() * u @ v.T
    positive = -0.5 * (similarity.log_softmax(1).diagonal() + similarity.log_softmax(0).diagonal())
    return torch.stack([torch.autograd.grad(loss, vector, retain_graph=True)[0] for loss in positive])


def test_tracin_is_the_squared_gradient_of_the_pairs_own_loss(cell):
    found = self_influence.tracin(cell.pairs, cell.head, "clip", QUICK)
    for batch in partitions(PAIRS, QUICK.batch_size, 1, QUICK.seed)[0]:
        expected = gradients_of_positive_role(cell, cell.head.vector(), batch).square().sum(1) / PAIRS
        torch.testing.assert_close(found[batch], expected, rtol=1e-3, atol=1e-7)


def test_positive_only_under_a_firm_anchor_is_the_squared_gradient_over_the_anchor(cell):
    """Nothing moves, and the curvature is the anchor's."""
    firm = Settings(batch_size=40, anchor=1e4)
    expected = self_influence.tracin(cell.pairs, cell.head, "clip", firm) / 1e4
    found = self_influence.positive_only(cell.pairs, cell.head, "clip", firm)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-10)


def test_positive_only_divides_by_the_curvature_at_rest(cell):
    """Weakly anchored, a direction in which many pairs pull counts for less."""
    loose = Settings(batch_size=40, anchor=0.05)
    found = self_influence.positive_only(cell.pairs, cell.head, "clip", loose)
    bound = self_influence.tracin(cell.pairs, cell.head, "clip", loose) / 0.05
    assert np.corrcoef(found, bound)[0, 1] > 0.5
    assert (found < bound).float().mean() > 0.7


def test_trak_is_each_pairs_leverage_times_how_wrong_it_is_twice(cell, monkeypatch):
    monkeypatch.setattr(self_influence, "PROJECTED", 24)
    found = self_influence.trak(cell.pairs, cell.head, seed=3).double().numpy()
    generator = torch.Generator().manual_seed(3)
    projection = attribution.random_projection(cell.head.size, 24, generator)
    everything = torch.ones(cell.head.size, dtype=torch.bool)
    features, wrong = attribution.trak_features(cell.head, cell.pairs, everything, projection, generator)
    phi, wrong = features.double().numpy(), wrong.double().numpy()
    gram = sum(np.outer(row, row) for row in phi)
    expected = [q * q * row @ np.linalg.solve(gram, row) for row, q in zip(phi, wrong, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_the_positive_role_of_a_sigmoid_loss_is_its_own_cell():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    groups = torch.eye(5, dtype=torch.bool)[[1, 3]]
    cotangents = self_influence.PositiveRole(LOSSES["siglip"]).deletion_cotangents(similarity, groups)
    expected = torch.zeros(2, 5, 5)
    for row, n in enumerate((1, 3)):
        expected[row, n, n] = -torch.sigmoid(-similarity[n, n])
    torch.testing.assert_close(cotangents, expected)


def test_precision_at_a_budget_counts_ties_by_their_mean():
    planted = np.array([True, False, True, False, False, False, False, False, False, False])
    assert precision_at(planted, np.arange(10)[::-1], 0.2) == 0.5
    assert precision_at(planted, np.array([3.0, 1, 1, 1, 0, 0, 0, 0, 0, 0]), 0.2) == pytest.approx((1 + 1 / 3) / 2)
    assert precision_at(planted, np.zeros(10), 0.01) == pytest.approx(0.2)


def test_calibration_error_is_zero_where_probabilities_are_shares():
    planted = np.arange(100) % 4 == 0
    assert calibration_error(planted, np.full(100, 0.25)) == pytest.approx(0)
    assert calibration_error(planted, np.full(100, 0.95)) == pytest.approx(0.7)
    assert calibration_error(planted, planted.astype(float)) == 0
    assert calibration_error(planted, 1.0 - planted) == pytest.approx(1)


def test_a_suggestion_is_right_where_it_names_the_images_class(cell):
    rows = np.flatnonzero(cell.planted)[:4]
    right = [NAMES[cell.classes.true[row]] for row in rows]
    others = np.flatnonzero(~cell.planted)[:3]
    texts = right[:3] + [NAMES[cell.classes.given[rows[3]]]] + ["zero"] * 3
    suggestions = SuggestedTexts(np.concatenate([rows, others]), [{text: 0.5} for text in texts], np.ones(7))
    assert suggestion_accuracy(cell, suggestions) == 0.75
    assert suggestion_accuracy(cell, SuggestedTexts(others, [{"zero": 0.5}] * 3, np.ones(3))) is None


def test_the_command_measures_a_saved_cell(cell, tmp_path, monkeypatch, capsys):
    cell.save(tmp_path / "cell.safetensors")
    arguments = ["--cell", tmp_path / "cell.safetensors", "--json", tmp_path / "figures.json"]
    arguments += ["--methods", "clip_score", "lemon"]
    monkeypatch.setattr(sys, "argv", ["detection", *map(str, arguments)])
    command.main()
    measured = json.loads((tmp_path / "figures.json").read_text())
    assert measured["settings"]["data"] == "tiny"
    figures = measured["figures"]
    assert figures["planted_rate"] == pytest.approx(0.2)
    assert {"auroc.clip_score", "auroc.lemon"} <= set(figures)
    assert [row[:2] for row in measured["tables"]["methods"]["rows"]] == [
        [name, figures[f"auroc.{name}"]] for name in ("clip_score", "lemon")
    ]
    assert "lemon" in capsys.readouterr().out


def test_a_cell_is_made_of_noisy_pairs_and_a_model_once(tiny_data, monkeypatch):
    settings = CellSettings("tiny", "uniform", 0.25, trusted=6)
    cell = make_cell(settings, progress=False)
    assert len(cell.pairs) == len(cell.views) == 40 and cell.planted.sum() == 10
    assert cell.trusted.sum() == 6 and not (cell.trusted & cell.planted).any()
    np.testing.assert_array_equal(cell.planted, cell.classes.given != cell.classes.true)
    assert [f"a {cell.classes.names[label]}" for label in cell.classes.given] == cell.captions
    assert tiny_data[0].captions == cell.captions, "the model has seen the noisy captions"
    monkeypatch.setattr(cell_data, "embedded", None)
    assert make_cell(settings, progress=False).captions == cell.captions, "the second time it is loaded"


def test_the_users_own_pairs_are_scored_by_the_named_model_or_else_by_the_base_model(
    tiny_data, tmp_path, pair_rows, monkeypatch
):
    lines = [f"{filepath},{caption},{shape}," for filepath, caption, shape in pair_rows]
    file = tmp_path / "pairs.csv"
    file.write_text("\n".join(["filepath,caption,label,misaligned", *lines]))
    cell = cell_of_file(
        CellSettings("pairs", "natural", model="ecif-tiny", checkpoint=str(tmp_path / "model.pt")), file
    )
    assert cell.planted is None and cell.classes.true is None
    assert [cell.classes.names[label] for label in cell.classes.given] == [shape for *_, shape in pair_rows]
    load_model("ecif-tiny", tmp_path / "model.pt").save_checkpoint(tmp_path / "base")
    monkeypatch.setattr(cell_data, "base_model", lambda: f"local-dir:{tmp_path / 'base'}")
    by_base = command.cell_of(command.Detection(pairs=file))
    assert torch.equal(by_base.pairs.gather(torch.arange(4))[0], cell.pairs.gather(torch.arange(4))[0])
    assert by_base.settings["regime"] == "given"


@pytest.mark.parametrize("given", [{"model": "ecif-tiny"}, {"checkpoint": "a.pt"}])
def test_a_model_comes_with_the_weights_that_its_name_does_not_hold(given):
    with pytest.raises(SystemExit, match="--model and --checkpoint come together"):
        command.cell_of(command.Detection(CellSettings(**given)))


def test_more_trusted_pairs_than_are_right_are_refused(tiny_data):
    with pytest.raises(ValueError, match="32 pairs are known to be right"):
        make_cell(CellSettings("tiny", trusted=33), progress=False)


def test_trusted_pairs_are_left_out_of_the_figures(cell, found):
    score = np.where(cell.planted, 1.0, 0.0)
    missed = np.flatnonzero(cell.planted)[0]
    score[missed] = -1.0
    blind = Evidence({"clip_score": score}, {}, None)
    trusted = np.arange(PAIRS) == missed
    assert figures(cell, blind)["auroc.clip_score"] < 1
    assert figures(Cell(**{**vars(cell), "trusted": trusted}), blind)["auroc.clip_score"] == 1
