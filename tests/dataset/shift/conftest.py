import pytest

from tests.support.shifted import FIELDS, shifted_samples


@pytest.fixture
def shifted_dataset():
    return shifted_samples()


@pytest.fixture
def given():
    """Arguments of a quick run on stored vectors."""
    return dict(embeddings=FIELDS, resamples=19, progress=False)
