"""Pairs on disk, and a tiny model that counts what its towers are given."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fiftyone_ecif.features import PairRow
from fiftyone_ecif.models import ContrastiveModel, load_model


class CountingModel(ContrastiveModel):
    """Counts the images and captions that go through the towers."""

    images = captions = 0

    def image_features(self, images):
        self.images += len(images)
        return super().image_features(images)

    def text_features(self, tokens):
        self.captions += len(tokens)
        return super().text_features(tokens)

    def counts(self):
        """Images and captions since the last call."""
        counts = self.images, self.captions
        self.images = self.captions = 0
        return counts


@pytest.fixture(scope="session")
def loaded():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model("ecif-tiny")


@pytest.fixture
def model(loaded):
    return CountingModel(loaded.model, loaded.preprocess, loaded.tokenizer, loaded.name)


@pytest.fixture
def rows(tmp_path):
    """Twelve pairs: images and captions all different."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    made = []
    for number in range(12):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)).save(path)
        made.append(PairRow(f"id-{number}", str(path), f"picture number {number}"))
    return made


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"
