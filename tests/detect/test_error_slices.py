"""Recurring errors that were planted are found, under the right name, and chance brings forth none."""

import numpy as np
import pytest
import torch

from fiftyone_ecif.detect import error_slices
from fiftyone_ecif.detect.error_slices import JudgedPairs, find_error_slices, suggested_texts
from fiftyone_ecif.detect.exchanged_words import exchanged
from fiftyone_ecif.detect.mispaired import mispairings

THINGS = ["cat", "dog", "tree", "car", "sun", "book", "fish", "hat"]
STYLES = ["old", "new", "small", "large", "plain"]
COUNT, WIDTH = 320, 24
DIRECTIONS = torch.nn.functional.normalize(torch.randn(13, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
MEANING = dict(zip([*THINGS, *STYLES], DIRECTIONS, strict=True))


def embed(texts: list[str]) -> torch.Tensor:
    """A text means its words; those that nobody knows mean nothing."""
    meant = [
        sum((MEANING.get(word, 0 * DIRECTIONS[0]) for word in text.lower().split()), 1e-3 * DIRECTIONS[0])
        for text in texts
    ]
    return torch.nn.functional.normalize(torch.stack(meant), dim=1)


class World:
    """Pairs of which some are wrong; misalignment is high for those, and low with some exceptions for the others."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        chosen = self.generator.integers(len(THINGS), size=COUNT), self.generator.integers(len(STYLES), size=COUNT)
        self.true = [f"{STYLES[style]} {THINGS[thing]}" for thing, style in zip(*chosen, strict=True)]
        self.texts, self.folders = list(self.true), self.generator.integers(6, size=COUNT)
        self.values = {"source": self.generator.choice(["a", "b", "c", "d"], size=COUNT).tolist()}

    def rotate(self, rows: np.ndarray) -> None:
        for row, text in zip(rows, [self.texts[row] for row in np.roll(rows, 1)], strict=True):
            self.texts[row] = text

    def judged(self, blur: float = 0.3, **more) -> JudgedPairs:
        noise = torch.from_numpy(self.generator.normal(size=(COUNT, WIDTH))).float() / WIDTH**0.5
        image = torch.nn.functional.normalize(embed(self.true) + blur * noise, dim=1)
        wrong = np.array([text != true for text, true in zip(self.texts, self.true, strict=True)])
        probability = np.where(wrong, self.generator.beta(6, 2, COUNT), self.generator.beta(0.5, 8, COUNT))
        paths = [f"/data/folder{folder}/{row:03d}.png" for row, folder in enumerate(self.folders)]
        return JudgedPairs(probability, image, embed(self.texts), 20.0, self.texts, paths, self.values, **more)


def only(found, kind):
    (chosen,) = [each for each in found if each.kind == kind]
    return chosen


def test_a_template_is_found_and_named_by_its_words():
    world = World()
    rows = np.sort(world.generator.choice(COUNT, 20, replace=False))
    for row in rows:
        world.texts[row] = f"Various Cliparts {row}"
    (found,) = find_error_slices(world.judged(embed=embed))
    assert found.rows.tolist() == rows.tolist() and found.name == "various cliparts #" and found.kind == "words"
    assert found.share > 0.6


@pytest.mark.parametrize("kind", ["folder", "value"])
def test_a_folder_and_a_value_are_found(kind):
    world = World(1)
    members = np.flatnonzero(world.folders == 3)[:40] if kind == "folder" else np.arange(40, 75)
    if kind == "value":
        world.values["source"] = [
            "bad" if row in members else source for row, source in enumerate(world.values["source"])
        ]
    world.rotate(members)
    found = find_error_slices(world.judged())[0]
    assert found.kind == kind and found.name == {"folder": "/data/folder3", "value": "source: bad"}[kind]
    assert np.isin(members, found.rows).all()


def test_exchanged_words_are_found_though_no_pair_is_suspected():
    world = World(2)
    rows = [row for row, text in enumerate(world.texts) if ("cat" in text) != ("dog" in text)]
    for row in rows:
        world.texts[row] = exchanged(world.texts[row], "cat", "dog")
    judged = world.judged(embed=embed)
    calm = JudgedPairs(**{**vars(judged), "probability": np.full(COUNT, 0.1)})
    found = only(find_error_slices(calm), "exchanged words")
    assert found.name == "cat ↔ dog" and np.isin(rows, found.rows).mean() > 0.9 and np.isin(found.rows, rows).all()


def test_words_that_are_hard_to_tell_apart_are_not_exchanged(monkeypatch):
    monkeypatch.setitem(MEANING, "dog", MEANING["cat"])
    assert not [each for each in find_error_slices(World(3).judged(embed=embed)) if each.kind == "exchanged words"]


def test_exchanged_topics_are_found_among_suspects():
    generator = np.random.default_rng(0)
    topics = torch.nn.functional.normalize(
        torch.randn(6, 16, generator=torch.Generator().manual_seed(1)), dim=1
    ).numpy()
    shown, said = generator.integers(2, 6, size=90), generator.integers(2, 6, size=90)
    shown[:15], said[:15], shown[15:30], said[15:30] = 0, 1, 1, 0

    def near(topic):
        rows = topics[topic] + 0.1 * generator.normal(size=(90, 16))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    found = mispairings(near(shown), near(said), np.arange(90), 0.05)[0]
    assert np.isin(found.rows, np.arange(30)).mean() > 0.9 and len(found.rows) > 20 and len(found.reverse) > 5
    mixed = generator.permutation(90)
    assert not mispairings(near(shown), near(said[mixed]), np.arange(90), 0.05)


def test_chance_brings_forth_a_slice_in_few_worlds_only():
    """Wrong texts that have nothing in common: the stated rate is one world in twenty."""
    hits = 0
    for seed in range(9):
        world = World(100 + seed)
        world.rotate(world.generator.choice(COUNT, [0, 16, 64][seed % 3], replace=False))
        hits += bool(find_error_slices(world.judged(embed=embed)))
    assert hits <= 2


def test_order_and_chunks_do_not_matter(monkeypatch):
    world = World(4)
    world.rotate(np.flatnonzero(world.folders == 2))
    for row in range(0, 60, 3):
        world.texts[row] = f"scan {row}"
    judged = world.judged(embed=embed)
    before = [(each.kind, each.name, each.rows.tolist(), each.share) for each in find_error_slices(judged)]
    assert len(before) >= 2
    order = world.generator.permutation(COUNT)
    moved = find_error_slices(judged.ordered(order))
    assert [(each.kind, each.name, np.sort(order[each.rows]).tolist(), each.share) for each in moved] == before
    monkeypatch.setattr(error_slices, "CHUNK", 7)
    again = find_error_slices(judged)
    assert [(each.kind, each.name, each.rows.tolist(), each.share) for each in again] == before
    rows = [row for each in before for row in each[2]]
    assert len(rows) == len(set(rows))


def test_suggested_texts_are_the_mean_by_fit_and_by_neighbours():
    judged = World(5).judged()
    asked = np.array([3, 50])
    found = suggested_texts(judged, asked)
    for place, row in enumerate(asked):
        others = [other for other in range(COUNT) if other != row]
        believed = 1 - judged.probability[others]
        fit = np.exp(20.0 * (judged.text[others] @ judged.image[row]).numpy()) * believed
        near = np.argsort(-(judged.image[others] @ judged.image[row]).numpy())[: error_slices.NEIGHBOURS]
        by_fit = fit / fit.sum() @ judged.text[others].numpy()
        by_near = believed[near] / believed[near].sum() @ judged.text[others].numpy()[near]
        assert found[place] == pytest.approx(0.5 * by_fit + 0.5 * by_near, abs=1e-3)


def test_few_pairs_and_texts_without_words_are_no_trouble():
    image = torch.eye(4)
    judged = JudgedPairs(
        np.array([0.9, 0.1, 0.9, 0.2]), image, image, 10.0, ["", "🙂", "12", "a"], ["a.png"] * 4, {}, embed
    )
    assert find_error_slices(judged) == []


def test_words_that_mislead_by_themselves_are_not_exchanged():
    """Alone, "cat" reads like a dog and the reverse; in their captions they mean what they say."""
    alone = {"cat": "dog", "dog": "cat"}
    judged = World(6).judged(0.8, embed=lambda texts: embed([alone.get(text, text) for text in texts]))
    assert not [each for each in find_error_slices(judged) if each.kind == "exchanged words"]
