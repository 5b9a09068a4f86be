import pytest
import torch

from fiftyone_ecif.core.partition import partition, partitions, without


@pytest.mark.parametrize(("pairs", "batch_size"), [(2, 2), (10, 4), (10, 64), (101, 10)])
def test_every_pair_stands_in_one_batch_of_even_size(pairs, batch_size):
    batches = partition(pairs, batch_size, seed=1)
    sizes = [len(batch) for batch in batches]
    assert sorted(torch.cat(batches).tolist()) == list(range(pairs))
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_rounds_are_seeded_differ_and_do_not_depend_on_their_number():
    few, many = partitions(50, 8, 2, seed=7), partitions(50, 8, 5, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(few[1], many[1], strict=True))
    assert not torch.equal(many[0][0], many[1][0])
    assert not torch.equal(many[0][0], partitions(50, 8, 1, seed=8)[0][0])


def test_removal_drops_pairs_and_nothing_else():
    rounds = partitions(20, 5, 2, seed=0)
    removed = torch.arange(20) < 6
    for batches in without(rounds, removed):
        assert sorted(torch.cat(batches).tolist()) == list(range(6, 20))


@pytest.mark.parametrize(("pairs", "batch_size"), [(1, 4), (0, 4), (10, 1)])
def test_too_few_to_compare_is_refused(pairs, batch_size):
    with pytest.raises(ValueError, match="at least 2"):
        partition(pairs, batch_size, seed=0)
