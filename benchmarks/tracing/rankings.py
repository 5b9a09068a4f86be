"""Which pairs each method blames for a failing query: traces in several orders, and the usual baselines."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.methods.attribution import TRAK_DIMENSION, trak_features
from benchmarks.tracing.trace_problem import TraceProblem
from fiftyone_ecif.attribution.question import Question
from fiftyone_ecif.attribution.trace_tables import in_company
from fiftyone_ecif.core import embeddings_under, influence, self_influence

METHODS = {
    "ecif": "ecif: blame (the default)",
    "ecif_alone": "ecif, blame without company",
    "ecif_relative": "ecif, relative influence",
    "ecif_plain": "ecif, plain value",
    "positive_only": "positive role only",
    "tracin": "TracIn",
    "trak": "TRAK",
    "nearest": "nearest in the embedding space",
    "random": "random",
}
"""What a table calls each method."""


def rankings(
    problem: TraceProblem, questions: list[Question], dense: Tensor, value: Tensor, effects: list, seed: int
) -> dict[str, Tensor]:
    """Scores (Q, N) by method; the lower a score, the more the pair is to blame."""
    objective, head = problem.objective, problem.head
    own = self_influence(objective, head, problem.curvature.quadratic)
    first_order = influence(objective, head, dense)
    generator = torch.Generator().manual_seed(seed)
    dimension = min(TRAK_DIMENSION, len(objective.pairs) // 2)
    projection = torch.randn(dense.shape[1], dimension, generator=generator) / dimension**0.5
    moved = torch.ones(dense.shape[1], dtype=torch.bool)
    features, weights = trak_features(head, objective.pairs, moved, projection, generator)
    trak = weights * (-(dense @ projection) @ torch.linalg.solve(features.T @ features, features.T))
    embedded = dict(zip(("image", "text"), embeddings_under(objective.pairs, head)))
    weights_of = {"image": head.image_weight, "text": head.text_weight}
    nearest = torch.stack(
        [
            embedded[question.asks] @ torch.nn.functional.normalize(weights_of[question.asks] @ question.feature, dim=0)
            for question in questions
        ]
    )
    alone = value / own.sqrt() * problem.doubt
    return {
        "ecif": torch.stack([in_company(row, lambda rows: embedded["image"][rows]) for row in alone]),
        "ecif_alone": alone,
        "ecif_relative": value / own.sqrt(),
        "ecif_plain": value,
        "positive_only": torch.stack([effect.positive for effect in effects]),
        "tracin": first_order.positive.mean(0),
        "trak": trak,
        "nearest": -nearest,
        "random": torch.rand(value.shape, generator=generator),
    }
