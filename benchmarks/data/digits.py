"""scikit-learn's handwritten digits: 1,797 real 8×8 images that come with the library."""

from __future__ import annotations

import numpy as np

from benchmarks.data.pairs import PairTable, write_captions, write_images
from fiftyone_ecif.features import cache_folder

CLASS_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEMPLATES = (
    "a handwritten {}",
    "the digit {} written by hand",
    "a scan of the number {}",
    "somebody wrote the figure {}",
    "a small gray image of a {}",
    "the number {} in pencil",
)
HELDOUT_SHARE = 6  # one pair in six is held out when fewer pairs exist than asked for


def load(train: int = 1_500, heldout: int = 297, seed: int = 0, progress: bool = True) -> PairTable:
    """The digits as pairs, captioned from templates.

    Args:
        train: number of training pairs; fewer where the data ends
        heldout: number of held-out pairs; fewer where the data ends
        seed: of the split and of the templates drawn
        progress: whether to show a progress bar

    Returns:
        training pairs first, then held-out ones
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    heldout = min(heldout, len(images) // HELDOUT_SHARE)
    train = min(train, len(images) - heldout)
    chosen = order[: train + heldout]
    labels = digits.target[chosen].astype(np.int64)
    return PairTable(
        filepaths=write_images(images[chosen], [f"{row:05d}" for row in chosen], cache_folder("digits"), progress),
        captions=write_captions(labels, CLASS_NAMES, TEMPLATES, rng),
        labels=labels,
        class_names=CLASS_NAMES,
        split=np.array(["train"] * train + ["heldout"] * heldout),
        templates=TEMPLATES,
        source="handwritten digits from scikit-learn",
    )
