"""What groups are proposed: texts, values, folders and clusters, by loops."""

import numpy as np

from fiftyone_ecif.detect.slice_candidates import (
    Candidates,
    clusters,
    shared_folders,
    shared_phrases,
    shared_values,
    words,
)


def groups(found: Candidates) -> dict[str, set[int]]:
    return {name: set(found.rows(number).tolist()) for number, name in enumerate(found.names)}


def test_phrases_are_those_that_enough_texts_and_not_most_have():
    texts = [
        "Red car 12",
        "a red CAR 7!",
        "red bus",
        "blue bus",
        "blue bus, red",
        "tree",
        "",
        "sun",
        "moon",
        "x",
        "y",
        "z",
    ]
    found = groups(shared_phrases(texts, 2))
    assert found["red car #"] == {0, 1} and found["red"] == {0, 1, 2, 4} and found["blue bus"] == {3, 4}
    assert "tree" not in found and "" not in found
    for name, rows in found.items():
        holding = {row for row, text in enumerate(texts) if f" {name} " in f" {' '.join(words(text))} "}
        assert rows == holding and 2 <= len(rows) <= len(texts) / 2


def test_values_may_be_several_or_none():
    found = groups(shared_values("value", ["a", ["a", "b", "b"], None, [], "b", "", "c", "d"], 2, "field: "))
    assert found == {"field: a": {0, 1}, "field: b": {1, 4}}


def test_folders_within_folders_have_groups_of_their_own():
    paths = ["/data/one/x/1.png", "/data/one/x/2.png", "/data/one/3.png", "/data/4.png", "/data/5.png", "/data/6.png"]
    found = groups(shared_folders(paths, 2))
    assert found == {"/data/one": {0, 1, 2}, "/data/one/x": {0, 1}}
    assert groups(shared_folders([r"C:\a\1.png", r"C:\a\2.png", *["C:\\b.png"] * 3], 2)) == {"C:/a": {0, 1}}


def test_clusters_hold_what_lies_together():
    generator = np.random.default_rng(0)
    rows = np.repeat(np.eye(8)[:4], 10, axis=0) + 0.05 * generator.normal(size=(40, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    found = groups(clusters("images", rows, 5))
    assert set(range(10, 20)) in found.values()
    order = generator.permutation(40)
    moved = groups(clusters("images", rows[order], 5))
    back = {frozenset(order[sorted(each)].tolist()) for each in moved.values()}
    assert back == {frozenset(each) for each in found.values()}


def test_nothing_in_common_is_no_group():
    assert len(shared_phrases(["a", "b", "c"], 2)) == 0
    assert len(shared_values("value", [None, None], 1)) == 0
    assert len(shared_folders(["x.png", "y.png"], 1)) == 0
