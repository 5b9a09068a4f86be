"""A pretended GPU, for every test of this folder."""

import pytest

from tests.support.models import families, make_model, seeded  # noqa: F401
from tests.support.pretended_gpu import pretended_gpu


@pytest.fixture
def gpu(monkeypatch):
    """The pretended device, for as long as the test lasts."""
    with pretended_gpu(monkeypatch) as device:
        yield device
