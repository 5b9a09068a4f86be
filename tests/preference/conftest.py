import pytest

from fiftyone_ecif.preference import Question, content_of
from fiftyone_ecif.preference import asking as module


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest.fixture
def questions(pair_rows):
    """What is asked about the first twelve generated images."""
    return [Question(path, content_of(path), "describe the image") for path, _, _ in pair_rows[:12]]
