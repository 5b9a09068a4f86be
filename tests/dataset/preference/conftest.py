import numpy as np
import pytest

from fiftyone_ecif.preference import ClipFit
from fiftyone_ecif.preference import asking as module
from tests.support.models import families, make_model, seeded  # noqa: F401


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest.fixture
def knowing(monkeypatch):
    """A CLIP model that knows what is red, and finds nothing else in an image."""
    monkeypatch.setattr(ClipFit, "of", lambda self, image, texts: [9.0 * ("red" in text) for text in texts])
    monkeypatch.setattr(ClipFit, "fit", lambda self, images, prompts, texts, steps, seeds: [1.0, 0.5])


@pytest.fixture
def guess():
    """A model that says the mean colour of what it sees, as a number; ``guess.asked`` are the prompts so far."""

    def answer(images, prompts):
        answer.asked.extend(prompts)
        return [f"Something of {np.asarray(image).mean():.3f}" for image in images]

    answer.asked, answer.fingerprint = [], "guess"
    return answer
