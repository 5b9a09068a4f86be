"""Finding pairs whose text does not belong to their image."""

from fiftyone_ecif.detect.baselines import batch_loss, clip_score
from fiftyone_ecif.detect.labels import label_misalignment
from fiftyone_ecif.detect.misalignment import Misalignment, misalignment
from fiftyone_ecif.detect.suggestions import Suggestions, suggest
from fiftyone_ecif.detect.threshold import threshold_for

__all__ = [
    "Misalignment",
    "Suggestions",
    "batch_loss",
    "clip_score",
    "label_misalignment",
    "misalignment",
    "suggest",
    "threshold_for",
]
