"""Queries as a head sees them: one image or text, and the few candidates that decide the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs
from fiftyone_ecif.core.query_gradient import OuterProducts, query_gradient

NEAR_RIGHT, NEAR_WRONG = 8, 56
"""Candidates of each kind that a question keeps: those nearest to the query."""


@dataclass(frozen=True)
class Question:
    """One query and its candidates.

    Attributes:
        feature: (F,) of the image or text that asks
        asks: "image" if an image looks for its text, "text" if a text looks for its image
        rows: int64 (C − E,), the pairs whose text, or image, the candidates are
        right: bool (C,)
        others: (E, F), features of candidates that no pair has; the last of the C
    """

    feature: Tensor
    asks: str
    rows: Tensor
    right: Tensor
    others: Tensor

    def target(self, head: Head, pairs: Pairs, kind: str) -> tuple[float, OuterProducts]:
        """The question's target and gradient under a head, by ``query_gradient``."""
        image, text = pairs.gather(self.rows)
        own = self.feature[None]
        candidates = torch.cat([text if self.asks == "image" else image, self.others])
        image, text = (own, candidates) if self.asks == "image" else (candidates, own)
        return query_gradient(head, image.to(head.image_weight), text.to(head.text_weight), self.right, kind)

    def without(self, removed: Tensor) -> Question:
        """The question when the pairs in ``removed`` (bool, (N,)) are no candidates any more, if some are left."""
        inside = ~removed[self.rows]
        kept = torch.cat([inside, torch.ones(len(self.others), dtype=torch.bool)])
        if not (self.right & kept).any() or not (~self.right & kept).any():
            return self
        return replace(self, rows=self.rows[inside], right=self.right[kept])


def nearest(scores: Tensor, right: Tensor) -> Tensor:
    """Of all candidates those that decide, int64, rising.

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
