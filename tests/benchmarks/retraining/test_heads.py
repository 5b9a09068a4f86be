"""Heads that are trained together are those that are trained alone, and those of torch's own AdamW."""

import pytest
import torch
from open_clip import ClipLoss
from torch.nn import functional

from benchmarks.retraining.heads import HeadRecipe, Heads, epoch_batches, first_heads, pair_losses, train_heads

RECIPE = HeadRecipe(epochs=3, batch_size=8, dimension=5, learning_rate=1e-2)
MEMBERS = torch.stack([torch.arange(0, 24), torch.arange(24, 48), torch.arange(0, 48, 2)])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_head_does_not_depend_on_those_trained_beside_it(tiny, dropout):
    recipe = HeadRecipe(3, 1e-2, 0.1, dropout, 8, 5)
    together = train_heads(tiny.pairs, MEMBERS, [3, 4, 5], recipe, checkpoints=(0, 2))
    alone = train_heads(tiny.pairs, MEMBERS[1:2], [4], recipe, checkpoints=(0, 2))
    assert len(together) == len(alone) == 3
    for many, one in zip(together, alone):
        for part, own in zip(many.parameters(), one.parameters()):
            torch.testing.assert_close(part[1], own[0])
    different = train_heads(tiny.pairs, MEMBERS[1:2], [6], recipe)[-1]
    assert not torch.allclose(different.image_weight, alone[-1].image_weight, atol=1e-2)


def test_training_is_that_of_open_clips_loss_by_adamw(tiny):
    trained = train_heads(tiny.pairs, MEMBERS[:1], [3], RECIPE)[-1]
    generator = torch.Generator().manual_seed(3)
    image, text = tiny.pairs.image, tiny.pairs.text
    weights = [part[0].requires_grad_() for part in first_heads(9, 7, 5, [generator]).parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": weights[:2], "weight_decay": RECIPE.weight_decay}, {"params": weights[2:], "weight_decay": 0.0}],
        lr=RECIPE.learning_rate,
    )
    for _ in range(RECIPE.epochs):
        for (rows,) in epoch_batches(MEMBERS[:1], 8, [generator]):
            sides = [functional.normalize(x[rows] @ w.T, dim=1) for x, w in zip((image, text), weights)]
            optimizer.zero_grad()
            ClipLoss()(*sides, weights[2].exp()).backward()
            optimizer.step()
    for part, own in zip(trained.parameters(), weights):
        torch.testing.assert_close(part[0], own, rtol=1e-4, atol=1e-5)


def test_losses_of_pairs_are_those_that_the_batch_loss_is_the_mean_of(tiny):
    heads = first_heads(9, 7, 5, [torch.Generator().manual_seed(1)])
    image, text = tiny.target.image, tiny.target.text
    first, second = heads.embed(image, text)
    expected = ClipLoss()(first[0], second[0], heads.logit_scale.exp()[0])
    assert heads.pair_losses(image, text).mean().item() == pytest.approx(expected.item(), rel=1e-5)
    similarity = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    by_hand = [-0.5 * (similarity.log_softmax(1)[i, i] + similarity.log_softmax(0)[i, i]) for i in range(2)]
    torch.testing.assert_close(pair_losses(similarity), torch.stack(by_hand))


def test_a_pass_holds_pairs_of_a_heads_own_once():
    batches = epoch_batches(MEMBERS, 5, [torch.Generator().manual_seed(seed) for seed in range(3)])
    assert [tuple(batch.shape) for batch in batches] == [(3, 5)] * 4
    for rows, members in zip(torch.cat(batches, dim=1), MEMBERS):
        assert len(rows.unique()) == 20 and set(rows.tolist()) <= set(members.tolist())


def test_one_of_many_heads_embeds_as_the_package_does(tiny):
    heads = first_heads(9, 7, 5, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
    assert isinstance(heads, Heads) and len(heads) == 2
    found = heads.head(1).linearize(tiny.target.image, tiny.target.text)
    torch.testing.assert_close(found.image, heads.embed(tiny.target.image, tiny.target.text)[0][1])
