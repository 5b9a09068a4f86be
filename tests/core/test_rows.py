"""Batches that are held a few rows at a time."""

import pytest
import torch

from fiftyone_ecif.core import Linearization, losses, rows
from tests.support.oracle import make_objective, random_vectors

KINDS = ["clip", "siglip"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [1, 3, 9])
def test_results_do_not_depend_on_how_many_rows_of_a_batch_are_held_together(kind, held, monkeypatch):
    """A hard negative among them: rows where 1 − P cancels are computed apart."""
    objective, head = make_objective(kind, pairs=10, batch_size=10, logit_scale=3.5)
    batch = head.linearize(*objective.pairs.gather(torch.arange(10)))
    batch.text = torch.cat([batch.image[1:2], batch.text[1:]])
    directions = random_vectors(2, head.size)

    def everything():
        value, gradient = rows.value_and_cotangent(objective.loss, batch)
        sampled = rows.sampled_cotangent(objective.loss, batch, 2, torch.Generator().manual_seed(0))
        found = [gradient, rows.curvature_cotangent(objective.loss, batch, directions), sampled]
        parts = [part for each in found for part in each if part is not None]
        assert rows.batch_value(objective.loss, batch) == pytest.approx(value, rel=1e-9)
        return [torch.tensor(value), *parts, *rows.role_derivatives(objective.loss, batch, directions)]

    whole = everything()
    monkeypatch.setattr(losses, "_CACHED_CELLS", {True: 20 * min(2, held), False: 20})
    monkeypatch.setattr(rows, "WHOLE_BYTES", held * 2 * 10 * 8)
    monkeypatch.delattr(Linearization, "similarity")  # S is not asked for
    for ours, expected in zip(everything(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
