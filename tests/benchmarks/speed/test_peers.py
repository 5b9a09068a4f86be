"""The task that the peers are given, and that all of them can be run on it."""

import argparse

import pytest
import torch

from benchmarks.speed import peers
from benchmarks.speed.made_up_store import fitting_head
from fiftyone_ecif.core import LOSSES, TensorPairs


def test_the_peers_are_given_the_positive_role_of_a_pair_among_others():
    head = fitting_head(16, 24)
    image, text = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))
    model = peers.PositiveRole(head, TensorPairs(image[1:], text[1:]))
    expected = LOSSES["clip"].roles(head.linearize(image, text).similarity()).positive[0]
    torch.testing.assert_close(peers.PositiveLoss()(model(image[:1], text[:1])), expected)


ASKED = argparse.Namespace(pairs=64, dim=8, feature_dim=8, batch=16, seed=0, limit=None, refits=1)


@pytest.mark.parametrize("name", ["captum_tracin", "dattri_cg"])
def test_a_peer_scores_every_pair(name):
    pytest.importorskip({"captum_tracin": "captum", "dattri_cg": "dattri"}[name])
    ASKED.peers = [name]
    figures = peers.measure(ASKED)
    assert figures[f"seconds_{name}"] > 0 and figures["seconds_refit"] > 0
    assert (f"times_faster_{name}_like_for_like_cpu" in figures) == (name == "captum_tracin")
    assert -1 <= figures[f"rank_correlation_{name}"] <= 1


def test_a_peer_that_takes_too_long_is_stopped_and_one_that_fails_is_named():
    assert peers.within(1, _never, *[None] * 4) is None
    with pytest.raises(RuntimeError, match="_broken failed"):
        peers.within(1, _broken, *[None] * 4)


def _never(*task):
    while True:
        pass


def _broken(*task):
    raise ValueError("broken")
