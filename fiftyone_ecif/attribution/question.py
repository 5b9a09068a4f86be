"""Queries to a head: one image or text, and the few candidates that decide the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs
from fiftyone_ecif.core.query_gradient import OuterProducts, query_gradient

NEAR_RIGHT, NEAR_WRONG = 8, 56
"""Right and wrong candidates that a question keeps: those nearest to the query."""


@dataclass(frozen=True)
class Question:
    """One query and its candidates.

    Attributes:
        feature: (F,) of the query, an image or a text
        asks: "image" if an image looks for its text, "text" if a text looks for its image
        rows: int64 (C − E,), the pairs whose texts, or images, are the candidates
        right: bool (C,), the right ones among all candidates
        others: (E, F), features of the candidates that belong to no pair; they come last
    """

    feature: Tensor
    asks: str
    rows: Tensor
    right: Tensor
    others: Tensor

    def target(self, head: Head, pairs: Pairs, kind: str) -> tuple[float, OuterProducts]:
        """The target of the question under a head, and its gradient, by ``query_gradient``."""
        image, text = pairs.gather(self.rows)
        own = self.feature[None]
        candidates = torch.cat([text if self.asks == "image" else image, self.others])
        image, text = (own, candidates) if self.asks == "image" else (candidates, own)
        return query_gradient(head, image.to(head.image_weight), text.to(head.text_weight), self.right, kind)

    def without(self, removed: Tensor) -> Question:
        """The question without the candidates in ``removed`` (bool, (N,)), if both right and wrong ones are left."""
        inside = ~removed[self.rows]
        kept = torch.cat([inside, torch.ones(len(self.others), dtype=torch.bool)])
        if not (self.right & kept).any() or not (~self.right & kept).any():
            return self
        return replace(self, rows=self.rows[inside], right=self.right[kept])


def nearest(scores: Tensor, right: Tensor) -> Tensor:
    """The candidates that decide the answer, int64, rising.

    Args:
        scores: (C,), similarity to the query
        right: bool (C,)

    Raises:
        ValueError: if there is no right or no wrong candidate
    """
    if not right.any() or right.all():
        raise ValueError(
            "A query needs a right and a wrong answer among the candidates: "
            + ("all of them are right." if right.all() else "none of them is right.")
        )
    deciding = torch.cat(
        [
            scores.masked_fill(~among, -torch.inf).topk(min(count, int(among.sum()))).indices
            for among, count in ((right, NEAR_RIGHT), (~right, NEAR_WRONG))
        ]
    )
    return deciding.sort().values
