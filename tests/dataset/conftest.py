import numpy as np
import pytest

from tests.support.scored import scored_dataset, scored_once  # noqa: F401


@pytest.fixture
def embedded_dataset(pair_dataset):
    """The generated pairs with stored embeddings that know shape and colour, and three captions swapped."""
    names = pair_dataset.values("filepath")
    rng = np.random.default_rng(0)
    kinds = sorted({path.split("-", 1)[1] for path in (name.rsplit("/", 1)[1] for name in names)})
    codes = {kind: rng.normal(size=16) for kind in kinds}
    kind_of = [name.rsplit("/", 1)[1].split("-", 1)[1] for name in names]
    image = [(codes[kind] + 0.3 * rng.normal(size=16)).tolist() for kind in kind_of]
    text = [(codes[kind] + 0.3 * rng.normal(size=16)).tolist() for kind in kind_of]
    captions = pair_dataset.values("caption")
    for a, b in ((0, 59), (10, 31), (20, 45)):
        text[a], text[b] = text[b], text[a]
        captions[a], captions[b] = captions[b], captions[a]
    planted = [row in (0, 59, 10, 31, 20, 45) for row in range(len(names))]
    for field, values in dict(clip_image=image, clip_text=text, caption=captions, planted=planted).items():
        pair_dataset.set_values(field, values)
    return pair_dataset


@pytest.fixture
def stored():
    """Arguments of a quick run on stored embeddings."""
    return dict(
        text_field="caption",
        image_embeddings="clip_image",
        text_embeddings="clip_text",
        rounds=2,
        batch_size=20,
        progress=False,
    )
