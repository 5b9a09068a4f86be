"""Shift risk: how far two sets of samples are apart, which samples carry it, and what it costs a model (docs/shift.md).

Tensors in, tensors out.
"""

from fiftyone_ecif.shift.club import Club, club_estimate, club_pass, load_club, save_club
from fiftyone_ecif.shift.directions import Direction, top_directions
from fiftyone_ecif.shift.divergence import WEIGHTINGS, Comparison, left_out
from fiftyone_ecif.shift.resampling import Estimate, Plan
from fiftyone_ecif.shift.risk import AnswerShift, Assessment, Divergence, InputShift, Side, assess, bounds
from fiftyone_ecif.shift.training import EstimatorFit, train_club
from fiftyone_ecif.shift.vectors import Fused, TensorVectors, Vectors

__all__ = [
    "WEIGHTINGS",
    "AnswerShift",
    "Assessment",
    "Club",
    "Comparison",
    "Direction",
    "Divergence",
    "Estimate",
    "EstimatorFit",
    "Fused",
    "InputShift",
    "Plan",
    "Side",
    "TensorVectors",
    "Vectors",
    "assess",
    "bounds",
    "club_estimate",
    "club_pass",
    "left_out",
    "load_club",
    "save_club",
    "top_directions",
    "train_club",
]
