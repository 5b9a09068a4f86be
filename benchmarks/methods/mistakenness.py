"""The mistakenness of class labels by FiftyOne Brain, from zero-shot predictions."""

from __future__ import annotations

import logging

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np

TEMPERATURE = 0.01  # 1/τ of pretrained CLIP


def mistakenness(image: np.ndarray, class_text: np.ndarray, labels: np.ndarray, class_names: list[str]) -> np.ndarray:
    """FiftyOne Brain's ``compute_mistakenness`` on a temporary dataset, which is deleted afterwards.

    Args:
        image: (N, D) unit vectors
        class_text: (K, D) unit vectors, one per class
        labels: (N,) int64, the given classes
        class_names: K names

    Returns:
        (N,), 0 to 1, higher = more suspicious
    """
    logging.getLogger("fiftyone.brain").setLevel(logging.WARNING)
    logits = image.astype(np.float64) @ class_text.T / TEMPERATURE
    dataset = fo.Dataset()
    try:
        dataset.add_samples(
            [
                fo.Sample(
                    filepath=f"{row}.png",  # never opened
                    given=fo.Classification(label=class_names[label]),
                    predicted=fo.Classification(label=class_names[scores.argmax()], logits=scores),
                )
                for row, (label, scores) in enumerate(zip(labels, logits))
            ],
            progress=False,
        )
        fob.compute_mistakenness(dataset, "predicted", label_field="given", use_logits=True, progress=False)
        return np.array(dataset.values("mistakenness"))
    finally:
        dataset.delete()
