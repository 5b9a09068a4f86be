"""The generated pairs with some captions planted wrong, and embeddings that a good model would give them."""

import numpy as np

PLANTED = range(0, 60, 5)
SHIFT = 25  # to a pair of the next colour and another shape
NOISE = 0.2


def plant_errors(dataset) -> None:
    """Give every fifth pair the caption of another, and store embeddings of all images and captions.

    Fields added: ``planted``, ``image_embedding`` (of what the image shows), ``text_embedding`` (of what the caption
    says): which of the captions' words apply, with some noise.
    """
    captions = dataset.values("caption")
    words = sorted({word for caption in captions for word in caption.split()})
    shown = np.array([[float(word in caption.split()) for word in words] for caption in captions])
    source = np.arange(len(captions))
    source[PLANTED] = (source[PLANTED] + SHIFT) % len(captions)
    noise = NOISE * np.random.default_rng(0).normal(size=(2, *shown.shape))
    dataset.set_values("caption", [captions[index] for index in source])
    dataset.set_values("planted", [index in PLANTED for index in range(len(captions))])
    dataset.set_values("image_embedding", list(shown + noise[0]))
    dataset.set_values("text_embedding", list(shown[source] + noise[1]))
