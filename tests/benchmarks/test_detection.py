"""The detection benchmark measures what it says: on a cell small enough for slow oracles."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import detection, detection_data, self_influence
from benchmarks.data.pairs import PairTable
from benchmarks.detection_cell import Cell, Classes, in_memory
from benchmarks.detection_data import CellSettings, read_pairs
from benchmarks.detection_methods import (
    ALL_METHODS,
    CLASS_METHODS,
    calibration_error,
    evidence,
    figures,
    precision_at,
    suggestion_accuracy,
)
from fiftyone_ecif.core import LOSSES, Head, partitions
from fiftyone_ecif.curation.detection import SuggestedTexts
from fiftyone_ecif.engine import Settings

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
        trusted=None,
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
        patch.setattr(self_influence, "TRAK_DIMENSION", 24)
        return evidence(cell, QUICK)


def test_every_method_gives_every_promised_figure(cell, found):
    table = figures(cell, found)
    for name in ALL_METHODS:
        assert found.scores[name].shape == (PAIRS,)
        assert table[f"auroc.{name}"] > 0.6, f"{name}: higher must mean more suspicious"
        for figure in ("ap", "f1", "precision_at_1pct", "seconds"):
            assert np.isfinite(table[f"{figure}.{name}"])
    assert {"ece", "noise_rate_estimate", "suggestion_accuracy"} <= set(table)


def test_free_captions_leave_the_methods_for_classes_out():
    cell = tiny_cell(with_classes=False)
    scores = evidence(cell, QUICK, ("clip_score", "deep_knn", *CLASS_METHODS)).scores
    assert set(scores) == {"clip_score", "deep_knn"}


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


def test_the_positive_role_of_a_sigmoid_loss_is_its_own_cell():
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    cotangents = self_influence.PositiveRole(LOSSES["siglip"]).deletion_cotangents(similarity, torch.tensor([1, 3]))
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
    right = [f"a {NAMES[cell.classes.true[row]]}" for row in rows]
    others = np.flatnonzero(~cell.planted)[:3]
    texts = right[:3] + [cell.captions[rows[3]]] + ["a zero"] * 3
    suggestions = SuggestedTexts(np.concatenate([rows, others]), texts, np.ones(7))
    assert suggestion_accuracy(cell, suggestions) == 0.75
    assert suggestion_accuracy(cell, SuggestedTexts(others, ["a zero"] * 3, np.ones(3))) is None


def write_table(path, header, *rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_pairs_come_from_a_table_with_or_without_classes_and_truth(tmp_path):
    rows = ["x.png,a cat,0,cat", "sub/y.png,a dog,1,dog"]
    table, planted = read_pairs(write_table(tmp_path / "a.csv", "filepath,caption,misaligned,label", *rows))
    assert table.filepaths == [str(tmp_path / "x.png"), str(tmp_path / "sub/y.png")]
    assert [table.class_names[label] for label in table.labels] == ["cat", "dog"]
    assert planted.tolist() == [False, True]
    table, planted = read_pairs(write_table(tmp_path / "b.csv", "filepath,caption,misaligned", "/x.png,a cat,"))
    assert planted is None and table.class_names == [] and table.filepaths == ["/x.png"]


@pytest.mark.parametrize(
    ("header", "row", "complaint"),
    [
        ("filepath,caption", "x.png,a cat", "no column misaligned"),
        ("filepath,caption,misaligned", "x.png,a cat,maybe", "must hold 0 or 1"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, header, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_pairs(write_table(tmp_path / "a.csv", header, row))


def test_the_command_measures_a_saved_cell(cell, tmp_path, monkeypatch, capsys):
    cell.save(tmp_path / "cell.safetensors")
    arguments = ["--cell", tmp_path / "cell.safetensors", "--json", tmp_path / "figures.json"]
    arguments += ["--methods", "clip_score", "lemon"]
    monkeypatch.setattr(sys, "argv", ["detection", *map(str, arguments)])
    detection.main()
    measured = json.loads((tmp_path / "figures.json").read_text())
    assert measured["data"] == "tiny" and measured["planted_rate"] == pytest.approx(0.2)
    assert {"auroc.clip_score", "auroc.lemon"} <= set(measured)
    assert "lemon" in capsys.readouterr().out


def test_a_cell_is_made_from_data_noise_and_model_once(tmp_path, monkeypatch, pair_rows):
    """The generated pairs stand in for a data set, an untrained model for a trained one."""
    import open_clip

    names = sorted({shape for *_, shape in pair_rows})
    labels = np.array([names.index(shape) for *_, shape in pair_rows])
    table = PairTable(
        [filepath for filepath, *_ in pair_rows],
        [f"a {names[label]}" for label in labels],
        labels,
        names,
        np.array(["train"] * 48 + ["heldout"] * 12),
        ("a {}",),
        "generated pairs",
    )
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path))
    monkeypatch.setitem(detection_data.DATA, "tiny", lambda **_: table)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ecif-tiny").state_dict(), tmp_path / "model.pt")
    settings = CellSettings(
        "tiny", "uniform", 0.25, model="ecif-tiny", checkpoint=str(tmp_path / "model.pt"), trusted=6
    )
    cell = detection_data.make_cell(settings, progress=False)
    assert len(cell.pairs) == 48 and len(cell.trusted) == 6 and cell.planted.sum() == 12
    np.testing.assert_array_equal(cell.planted, cell.classes.given != cell.classes.true)
    assert [names[label] for label in cell.classes.given] == [caption.removeprefix("a ") for caption in cell.captions]
    monkeypatch.setattr(detection_data, "embedded", None)
    assert detection_data.make_cell(settings, progress=False).captions == cell.captions, "the second time it is loaded"
