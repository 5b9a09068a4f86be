"""A run on the generated pairs, computed once and cloned for each test that needs it."""

import pytest

from tests.support.planted import plant_errors


@pytest.fixture(scope="session")
def scored_once(pair_rows):
    """The embedded pairs with a run "first", computed once; to be cloned."""
    import fiftyone as fo

    import fiftyone_ecif as ecif

    dataset = fo.Dataset()
    dataset.add_samples(
        [
            fo.Sample(filepath=filepath, caption=caption, ground_truth=fo.Classification(label=shape))
            for filepath, caption, shape in pair_rows
        ]
    )
    plant_errors(dataset)
    ecif.compute_influence(
        dataset,
        "caption",
        run_key="first",
        image_embeddings="image_embedding",
        text_embeddings="text_embedding",
        num_workers=0,
        progress=False,
    )
    return dataset


@pytest.fixture
def scored_dataset(scored_once):
    """The embedded pairs with a run "first"; they stay, as those of ``pair_dataset`` do."""
    return scored_once.clone()
