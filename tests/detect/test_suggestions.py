"""Better texts: exchanged captions go back to their images, labels are open to all, and right ones stay."""

import numpy as np
import pytest
import torch

from fiftyone_ecif.core import Head, TensorPairs
from fiftyone_ecif.detect.pipeline import suggest_texts
from fiftyone_ecif.detect.suggestions import discount

WIDTH, SCALE = 24, 20.0


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


class World:
    """Images and texts near points of their own, or near the points of classes; some texts have changed places."""

    def __init__(self, pairs=200, wrong=30, classes=None, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.true = torch.arange(pairs) % (classes or pairs)
        points = torch.randn(classes or pairs, WIDTH, generator=generator)
        self.image = unit(points[self.true] + 0.5 * torch.randn(pairs, WIDTH, generator=generator))
        self.texts_of = unit(points + 0.3 * torch.randn(len(points), WIDTH, generator=generator))
        self.rows = torch.randperm(pairs, generator=generator)[:wrong].sort().values.numpy()
        self.said = self.true.clone()
        self.said[self.rows] = self.true[self.rows].roll(1)
        self.misalignment = np.where(np.isin(np.arange(pairs), self.rows), 0.9, 0.01)
        self.fold = torch.randperm(pairs, generator=generator) % 2

    def suggest(self, rows=None, misalignment=None, order=None, name="text {:03}".format):
        order = torch.arange(len(self.image)) if order is None else order
        head = Head(torch.eye(WIDTH), torch.eye(WIDTH), torch.tensor(SCALE).log())
        misalignment = self.misalignment if misalignment is None else misalignment
        place = order.argsort().numpy()
        rows = self.rows if rows is None else rows
        return suggest_texts(
            TensorPairs(self.image[order], self.texts_of[self.said[order]]),
            [head, head],
            self.fold[order],
            misalignment[order.numpy()],
            [name(said) for said in self.said[order].tolist()],
            np.sort(place[rows]),
        )

    def right(self, found, order=None):
        """Share of the suggested texts that are those of the images, and of candidate lists that hold them."""
        true = self.true if order is None else self.true[order]
        wanted = [f"text {true[row]:03}" for row in found.rows]
        first = [next(iter(candidates)) for candidates in found.candidates]
        hits = [text in candidates for text, candidates in zip(wanted, found.candidates, strict=True)]
        return np.mean([a == b for a, b in zip(first, wanted, strict=True)]), np.mean(hits)


def test_exchanged_captions_go_back_to_their_images():
    world = World()
    found = world.suggest()
    first, among_five = world.right(found)
    assert first > 0.9 and among_five > 0.95
    suspected = {f"text {said:03}" for said in world.said[world.rows].tolist()}
    assert all(set(candidates) <= suspected for candidates in found.candidates)  # nobody else's text is given away
    for candidates, own in zip(found.candidates, found.own, strict=True):
        assert list(candidates.values()) == sorted(candidates.values(), reverse=True)
        assert sum(candidates.values()) + own <= 1 + 1e-9 and len(candidates) <= 5


def test_two_suspects_change_places():
    world = World(wrong=2)
    assert world.right(world.suggest())[0] == 1.0


def test_where_everybody_is_suspected_nothing_is_said_for_certain():
    """No pair is left that shows how texts fit their images."""
    found = World(pairs=60, wrong=60).suggest()
    assert all(max(candidates.values()) < 0.5 for candidates in found.candidates)


def test_one_suspect_alone_gets_no_text_of_another():
    world = World(wrong=2)
    alone = np.where(np.arange(200) == world.rows[0], 0.9, 0.01)
    assert len(world.suggest(world.rows[:1], alone).rows) == 0


def test_right_captions_that_are_suspected_keep_their_texts():
    world = World(wrong=30)
    fine = np.setdiff1d(np.arange(200), world.rows)[:15]
    suspicious = world.misalignment.copy()
    suspicious[fine] = 0.6
    found = world.suggest(np.sort(np.concatenate([world.rows, fine])), suspicious)
    replaced = [p for row, (_, p) in found.first().items() if row in fine]
    assert not [p for p in replaced if p >= 0.9] and len(replaced) < 5
    assert max(p for row, (_, p) in found.first().items() if row not in fine) > 0.85


def test_labels_are_open_to_every_image():
    """A class may be right for more images than its label was taken from: here all wrong labels are of one class."""
    world = World(pairs=300, wrong=0, classes=6)
    world.rows = np.flatnonzero(world.true.numpy() == 2)[:25]
    world.said[world.rows] = 4
    world.misalignment[world.rows] = 0.9
    found = world.suggest()
    assert world.right(found)[0] > 0.95
    assert np.mean([p for _, p in found.first().values()]) > 0.75


def test_repeated_captions_have_a_place_for_each_image():
    world = World(pairs=200, wrong=40, classes=100)  # each text belongs to two images
    assert world.right(world.suggest())[0] > 0.85


def test_the_order_of_the_pairs_does_not_matter():
    world = World()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(5))
    plain, mixed = world.suggest(), world.suggest(order=order)
    there = {int(order[row]): candidates for row, candidates in zip(mixed.rows, mixed.candidates, strict=True)}
    assert sorted(there) == plain.rows.tolist()
    for row, candidates in zip(plain.rows.tolist(), plain.candidates, strict=True):
        assert list(there[row]) == list(candidates)
        assert there[row] == pytest.approx(candidates, abs=1e-3)


def test_what_is_asked_besides_changes_nothing():
    world = World()
    some, everything = world.suggest(world.rows[:5]), world.suggest(np.arange(200))
    of = dict(zip(everything.rows.tolist(), everything.candidates, strict=True))
    assert all(of[row] == candidates for row, candidates in zip(some.rows.tolist(), some.candidates, strict=True))


def test_nothing_asked_and_nothing_to_offer():
    world = World()
    assert len(world.suggest(np.empty(0, dtype=np.int64)).rows) == 0
    assert len(world.suggest(np.arange(3), np.full(200, 0.01)).rows) == 0
    alike = World(pairs=8, wrong=8, classes=1)
    assert len(alike.suggest().rows) == 0


def test_how_much_of_a_count_is_a_texts_own():
    assert discount(np.ones(5)) == 1.0
    assert discount(np.array([1, 1, 2, 7])) == 0.5
    assert discount(np.array([50, 60])) == 0.0
