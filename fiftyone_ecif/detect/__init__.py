"""The misalignment score from end to end: which pairs have a text that does not belong to their image."""

from fiftyone_ecif.detect.captions import Misalignment, misalignment
from fiftyone_ecif.detect.cross_fit import CrossFit, cross_fit, label_beliefs
from fiftyone_ecif.detect.labels import label_misalignment
from fiftyone_ecif.detect.suggestions import Suggestions, suggest
from fiftyone_ecif.detect.threshold import threshold_for

__all__ = [
    "CrossFit",
    "Misalignment",
    "Suggestions",
    "cross_fit",
    "label_beliefs",
    "label_misalignment",
    "misalignment",
    "suggest",
    "threshold_for",
]
