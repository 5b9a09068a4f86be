"""Forms and operators without a browser, on pairs whose embeddings are stored in fields."""

import asyncio

import pytest

from tests.support.planted import plant_errors
from tests.support.scored import scored_dataset, scored_once  # noqa: F401


@pytest.fixture
def embedded_dataset(pair_dataset):
    """The generated pairs with planted errors and stored embeddings."""
    plant_errors(pair_dataset)
    return pair_dataset


@pytest.fixture
def resolve_form():
    """``resolve_form(operator, samples, **params)``: the form's inputs by name, as the App would get them."""
    import fiftyone as fo
    from fiftyone.operators import OperatorRegistry
    from fiftyone.operators.executor import resolve_type

    def resolve_form(operator, samples, **params):
        is_view = isinstance(samples, fo.DatasetView)
        request = {
            "dataset_name": samples.dataset_name if is_view else samples.name,
            "view": samples._serialize() if is_view else [],
            "target": "inputs",
            "params": params,
        }
        form = asyncio.run(resolve_type(OperatorRegistry(), operator, request))
        return form.type.properties

    return resolve_form
