"""The tiny models, for every test of this folder."""

from tests.support.models import families, images, make_model, make_scope, seeded  # noqa: F401
