from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PUBLISHED = "reference/emi"


def _published() -> Path | None:
    """What the authors published, where it lies beside the checkout: it has no licence and is never shipped."""
    places = [REPOSITORY / "shared", *(parent / "shared" for parent in REPOSITORY.parents)]
    return next((place / PUBLISHED for place in places if (place / PUBLISHED).is_dir()), None)


@pytest.fixture
def published() -> Path:
    found = _published()
    if found is None:
        pytest.skip("the authors' published data is not here")
    return found
