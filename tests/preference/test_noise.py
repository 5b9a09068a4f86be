"""The noise schedule has the published values and is put on the pixels that a model sees."""

import numpy as np
import pytest
import torch
from PIL import Image

from fiftyone_ecif.preference import signal_shares, weakened, weakened_image


def test_the_schedule_is_the_published_one():
    shares = signal_shares()
    assert shares.shape == (1000,) and (shares.diff() < 0).all()
    assert shares[900].item() == pytest.approx(0.1331, abs=5e-5)
    assert [round(shares[step].item() ** 0.5, 3) for step in (500, 700, 900)] == [0.863, 0.593, 0.365]


def test_noise_keeps_the_share_of_the_image_and_the_variance():
    pixels = torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(1))
    found = weakened(pixels, 900, seed=0)
    assert torch.corrcoef(torch.stack([pixels.flatten(), found.flatten()]))[0, 1] == pytest.approx(0.365, abs=0.01)
    assert found.std() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(found, weakened(pixels, 900, seed=0)) and not torch.equal(found, weakened(pixels, 900, seed=1))
    assert weakened(pixels, 0, seed=0) is pixels


def test_a_picture_is_weakened_as_a_picture():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8))
    found = weakened_image(image, 900, seed=0)
    assert found.size == image.size and found.mode == "RGB"
    correlation = np.corrcoef(np.asarray(image).ravel(), np.asarray(found).ravel())[0, 1]
    assert 0.2 < correlation < 0.45
    assert weakened_image(image, 0, seed=0) is image
