"""Every method answers what it is asked, and those that promise a relation to a run or to a training keep it."""

import json
import sys

import pytest
import torch

from benchmarks.retraining import command, problem
from benchmarks.retraining.heads import HeadRecipe, Heads, train_heads
from benchmarks.retraining.influences import Asked, Influence, Snapshot, gradient_sizes, through_segment
from benchmarks.retraining.methods import OF_HEADS, OF_MODELS, HeadMethods
from benchmarks.retraining.tables import TITLES
from benchmarks.retraining.trained import TrainedHeads
from fiftyone_ecif.attribution import Attributed, Settings, compute

RECIPE = HeadRecipe(epochs=5, batch_size=12, dimension=6, learning_rate=1e-2)
SETTINGS = Settings(batch_size=16, rounds=2)


@pytest.fixture(scope="module")
def snapshot(tiny):
    (trained,) = train_heads(tiny.pairs, torch.arange(48)[None], [1], RECIPE)
    return Snapshot(Asked(tiny, [1, 4], SETTINGS), trained.head(0))


def test_gradients_are_those_of_the_mean_loss_and_of_the_queries(tiny, snapshot):
    theta = snapshot.head.vector().requires_grad_()
    head = snapshot.head.replace(theta)
    heads = Heads(*(part[None] for part in (head.image_weight, head.text_weight, head.logit_scale)))
    losses = heads.pair_losses(tiny.target.image, tiny.target.text)[0]
    wanted = [losses.mean(), losses[1], losses[4]]
    expected = torch.stack([torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in wanted])
    torch.testing.assert_close(snapshot.asked.gradients(snapshot.head), expected, rtol=1e-3, atol=1e-5)


def test_influence_at_rest_is_what_a_run_computes(tiny, snapshot):
    found = Influence.at_rest(snapshot).solved()
    run = compute(Attributed(snapshot.head, tiny.pairs, tiny.target), "clip", SETTINGS)
    for ours, theirs in (
        (found.value("exact")[0], run.scores.value),
        (found.positive[0], run.scores.value_positive),
    ):
        assert torch.linalg.vector_norm(ours - theirs) < 0.05 * torch.linalg.vector_norm(theirs)


def test_a_long_segment_inverts_the_curvature_and_a_short_one_takes_its_steps(snapshot):
    found = Influence.at(snapshot)
    curvature, sizes = found.kronecker(), gradient_sizes(found.objective, found.head)
    vectors = found.asked.gradients(found.head)
    reached, left = through_segment(curvature, vectors, torch.full_like(sizes, 1e-6), 3)
    torch.testing.assert_close(reached, 3e-6 * vectors, rtol=1e-3, atol=1e-9)
    assert torch.linalg.vector_norm(left - vectors) < 1e-3 * torch.linalg.vector_norm(vectors)
    assert len(sizes.unique()) == 3 and (sizes > 0).all()
    layer = curvature.layers[0]
    part = slice(layer.position, layer.position + layer.eigenvalues.numel())
    inverted, _ = through_segment(curvature, reached * 0 + vectors, torch.full_like(sizes, 1e9), 10**6)
    rotated = layer.rows.T @ inverted[0, part].view(layer.eigenvalues.shape) @ layer.columns
    original = layer.rows.T @ vectors[0, part].view(layer.eigenvalues.shape) @ layer.columns
    curved = layer.eigenvalues > 1e-6
    torch.testing.assert_close((rotated * layer.eigenvalues)[curved], original[curved], rtol=1e-2, atol=1e-4)


def test_heads_of_halves_stop_where_what_they_left_out_is_least_surprising(tiny):
    trained = TrainedHeads(Asked(tiny, [1], SETTINGS), RECIPE, 0)
    assert trained.epochs == [0, 1, 2, 3, 5] and trained.steps([0, 1, 3]) == [4, 8]
    assert all(
        sorted([*first.tolist(), *second.tolist()]) == list(range(48))
        for first, second in trained.members.view(2, 2, -1)
    )
    left = trained.left_out_losses
    for number in range(4):
        best = trained.epochs[int(left[:, number].argmin())]
        assert torch.equal(trained.stopped(number).head.vector(), trained.of_half(best, number).head.vector())
        others = trained.members[number ^ 1]
        heads = Heads(*(part[None] for part in vars(trained.of_half(2, number).head).values() if part is not None))
        own = heads.pair_losses(*tiny.pairs.gather(others)).mean()
        assert left[trained.epochs.index(2), number] == pytest.approx(own.item(), rel=1e-5)


def test_every_method_scores_all_pairs_for_the_mean_and_for_every_query(tiny):
    methods = HeadMethods(TrainedHeads(Asked(tiny, [1, 4], SETTINGS), RECIPE, 0))
    for name, method in {**OF_MODELS, **OF_HEADS}.items():
        scores = method(methods)
        assert scores.shape == (3, 48) and scores.isfinite().all(), name
        assert scores.std(1).min() > 0, name
    assert TITLES.keys() == OF_MODELS.keys() | OF_HEADS.keys()


def test_the_command_writes_what_it_promises_and_resumes(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FIFTYONE_ECIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "head_problem", lambda *arguments: tiny)
    options = "--pairs 48 --target 16 --subsets 6 --seeds 2 --queries 2 --seed 1 --epochs 5 --batch-size 12"
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", ["retraining", *options.split(), "--dimension", "6", "--json", str(path)])
    command.main()
    figures = json.loads(path.read_text())["figures"]
    for name in TITLES:
        assert {
            f"lds_mean.{name}",
            f"lds_mean.{name}_se",
            f"lds_query.{name}",
            f"lds_query.{name}_se",
        } <= figures.keys()
    assert {"ceiling", "ceiling_se", "ceiling_query"} <= figures.keys()
    assert "ECIF as a run computes it" in capsys.readouterr().out
    monkeypatch.setattr("benchmarks.retraining.outcomes.train_heads", None)  # nothing is trained again
    command.main()
    assert json.loads(path.read_text())["figures"] == figures


@pytest.mark.parametrize("wrong", ["--seeds 1", "--queries 700", "--subsets 2"])
def test_too_little_to_compare_is_refused(monkeypatch, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["retraining", *wrong.split()])
    with pytest.raises(SystemExit):
        command.main()
    assert "no more queries than targets" in capsys.readouterr().err


def test_wrong_captions_are_planted_among_training_pairs_alone(monkeypatch):
    import numpy as np

    from benchmarks.data.pairs import PairTable

    def load(train, heldout, seed, progress):
        count = train + heldout
        names = [f"a {number}" for number in range(count)]
        split = np.array(["train"] * train + ["heldout"] * heldout)
        return PairTable(names, names, np.full(count, -1), [], split, (), "made up")

    monkeypatch.setitem(problem.DATA, "emoji", load)
    table, planted = problem.noisy_table("emoji", 40, 10, 0)
    assert planted.sum() == 8 and not planted[40:].any()
    assert ((np.array(table.captions) != np.array(table.filepaths)) == planted).all()
