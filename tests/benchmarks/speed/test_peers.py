"""The task that the peers are given, and that all of them can be run on it."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch.utils.data import TensorDataset

from benchmarks.speed import peer_methods, peers
from benchmarks.speed.made_up_store import fitting_head
from fiftyone_ecif.core import LOSSES, TensorPairs


def features(count, width, seed):
    return torch.randn(2, count, width, generator=torch.Generator().manual_seed(seed))


def test_the_peers_are_given_the_positive_role_of_a_pair_among_others():
    head = fitting_head(16, 24)
    image, text = features(9, 24, 0)
    model = peer_methods.PositiveRole(head, TensorPairs(image[1:], text[1:]))
    expected = LOSSES["clip"].roles(head.linearize(image, text).similarity()).positive[0]
    torch.testing.assert_close(peer_methods.PositiveLoss()(model(image[:1], text[:1])), expected)


@pytest.fixture
def task():
    """The model, 48 pairs and 5 target pairs as a peer is given them, and the anchor."""
    model = peer_methods.PositiveRole(fitting_head(6, 8), TensorPairs(*features(15, 8, 1)))
    train, target = (TensorDataset(*features(count, 8, seed), torch.zeros(count)) for count, seed in ((48, 2), (5, 3)))
    return model, train, target, 1_000.0


def gradients(model, pairs):
    """∇ of each pair's loss, (N, P), by autograd."""
    rows = []
    for image, text, _ in pairs:
        loss = peer_methods.PositiveLoss()(model(image[None], text[None]))
        rows.append(torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows)


def test_captum_takes_the_products_of_gradients(task, tmp_path):
    pytest.importorskip("captum")
    model, train, target, _ = task
    expected = gradients(model, train) @ gradients(model, target).mean(0)
    torch.testing.assert_close(peer_methods.captum_tracin(*task, tmp_path), expected, rtol=1e-3, atol=1e-5)


def test_dattri_solves_with_the_hessian_and_the_anchor(task, tmp_path):
    """Ten steps of conjugate gradients are as good as a solve where the anchor outweighs the indefinite Hessian."""
    pytest.importorskip("dattri")
    model, train, target, anchor = task
    names = [name for name, _ in model.named_parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    image, text, _ = train.tensors

    def mean_loss(vector):
        parts = dict(zip(names, vector.split(sizes), strict=True))
        shaped = {name: parts[name].reshape(value.shape) for name, value in model.named_parameters()}
        return peer_methods.PositiveLoss()(torch.func.functional_call(model, shaped, (image, text))) / len(image)

    theta = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    hessian = torch.func.hessian(mean_loss)(theta) + anchor * torch.eye(len(theta))
    expected = gradients(model, train) @ torch.linalg.solve(hessian, gradients(model, target).mean(0))
    found = peer_methods.dattri_conjugate_gradients(*task, tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


ASKED = peers.Peers(pairs=64, dim=8, feature_dim=8, batch=16, limit=30, refits=0)


def test_a_peers_seconds_and_order_are_set_against_ours(monkeypatch, capsys):
    """TracIn is set against scores without curvature as well; what was stopped has a lower bound."""
    own, scores = [], []
    plain_ours = peers.ours

    def ours(*arguments):
        own.append(plain_ours(*arguments))
        return own[-1]

    def within(limit, peer, model, train, target, anchor):
        assert limit == 30 and len(train) == 64 and len(target) == peer_methods.TARGETS
        if peer is peer_methods.trak:
            return None
        scores.append(torch.randn(64, generator=torch.Generator().manual_seed(len(scores))))
        return peers.Seconds(50.0, 20.0), scores[-1]

    def timed(work):
        return next(seconds), work()

    seconds = iter([peers.Seconds(4.0, 2.0), peers.Seconds(1.0, 0.5)])
    for name, replacement in (("ours", ours), ("within", within), ("timed", timed)):
        monkeypatch.setattr(peers, name, replacement)
    asked = replace(ASKED, peers=("captum_tracin", "dattri_cg", "trak"))
    figures = peers.measure(asked)
    assert figures["times_faster_captum_tracin"] == figures["times_faster_dattri_cg"] == 12.5
    assert figures["times_faster_captum_tracin_like_for_like_cpu"] == 40
    assert figures["times_faster_trak_cpu_at_least"] == 15
    for name, found in zip(("captum_tracin", "dattri_cg"), scores, strict=True):
        assert figures[f"rank_correlation_{name}"] == pytest.approx(spearmanr(found, own[0]).statistic)
    assert not [name for name in figures if "dattri_cg_like_for_like" in name]
    table = peers.peer_table(figures, asked.limit)
    assert [row[1:3] for row in table.rows] == [
        [2.0, None], [20.0, 10.0], [20.0, 10.0], ["not finished after 30", "more than 15"],
    ]  # fmt: skip


def test_refits_are_set_against_forecasts(monkeypatch):
    """The head is fitted once and refitted as often as asked, each time without another group."""
    fitted = []
    plain = peers.fit_to_rest
    monkeypatch.setattr(
        peers, "fit_to_rest", lambda objective, *rest: fitted.append(objective) or plain(objective, *rest)
    )
    figures = peers.measure(replace(ASKED, peers=(), refits=2))
    counts = [len(torch.cat(objective.rounds[0])) for objective in fitted]
    assert len(counts) == 3 and counts[0] == 64
    assert {"seconds_per_forecast", "times_faster_refit", "times_faster_refit_cpu"} <= set(figures)
    assert figures["times_faster_refit"] == pytest.approx(figures["seconds_refit"] / figures["seconds_per_forecast"])


@pytest.mark.slow
def test_a_peer_that_takes_too_long_is_stopped_and_one_that_fails_is_named():
    assert peers.within(1, _never, *[None] * 4) is None
    with pytest.raises(RuntimeError, match="_broken failed"):
        peers.within(60, _broken, *[None] * 4)


def _never(*task):
    while True:
        pass


def _broken(*task):
    raise ValueError("broken")
