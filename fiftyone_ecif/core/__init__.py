"""The mathematics of ECIF: tensors in, tensors out. Nothing here knows of FiftyOne or of open_clip."""

from fiftyone_ecif.core.conjugate_gradients import Solution, conjugate_gradients, largest_eigenvalue
from fiftyone_ecif.core.fit import Fit, fit_to_rest
from fiftyone_ecif.core.group_removal import removal_gradients, removal_step
from fiftyone_ecif.core.head import Head
from fiftyone_ecif.core.influence import influence, self_influence, self_influence_by_probes, self_influence_scale
from fiftyone_ecif.core.kronecker import KroneckerCurvature, kronecker_curvature
from fiftyone_ecif.core.losses import LOSSES, ClipLoss, ContrastiveLoss, Roles, SigLipLoss
from fiftyone_ecif.core.low_rank import LowRankInverse, low_rank_inverse
from fiftyone_ecif.core.objective import Objective
from fiftyone_ecif.core.pairs import Pairs, Subset, TensorPairs, embeddings_under
from fiftyone_ecif.core.partition import partitions
from fiftyone_ecif.core.scope import Linearization, Scope
from fiftyone_ecif.core.workers import HERE, Progress, Workers, silent

__all__ = [
    "HERE",
    "LOSSES",
    "ClipLoss",
    "ContrastiveLoss",
    "Fit",
    "Head",
    "KroneckerCurvature",
    "Linearization",
    "LowRankInverse",
    "Objective",
    "Pairs",
    "Progress",
    "Roles",
    "Scope",
    "SigLipLoss",
    "Solution",
    "Subset",
    "TensorPairs",
    "Workers",
    "conjugate_gradients",
    "embeddings_under",
    "fit_to_rest",
    "influence",
    "kronecker_curvature",
    "largest_eigenvalue",
    "low_rank_inverse",
    "partitions",
    "removal_gradients",
    "removal_step",
    "self_influence",
    "self_influence_by_probes",
    "self_influence_scale",
    "silent",
]
