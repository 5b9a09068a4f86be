"""The gradient of a query's target by the head's parameters, as a sum of few outer products (ECIF.md §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_ecif.core.head import Head

KINDS = ("margin", "loss")


@dataclass(frozen=True)
class OuterProducts:
    """Gradients of K scalars by the head's parameters, as sums of outer products.

    Attributes:
        image: (I, D) and (I, F_image), the factors a_p, x_p of the image projection's part Σ_p a_p x_pᵀ
        text: (J, D) and (J, F_text), likewise of the text projection's
        image_owner: int64 (I,), the gradient, 0 to K − 1, that each product belongs to
        text_owner: int64 (J,)
        logit_scale: (K,)
        logit_bias: (K,), zero where the head has none
    """

    image: tuple[Tensor, Tensor]
    text: tuple[Tensor, Tensor]
    image_owner: Tensor
    text_owner: Tensor
    logit_scale: Tensor
    logit_bias: Tensor

    def __len__(self) -> int:
        return len(self.logit_scale)

    @classmethod
    def join(cls, parts: Sequence[OuterProducts]) -> OuterProducts:
        """All gradients of several such objects, in order."""
        starts = torch.tensor([0, *map(len, parts)]).cumsum(0).tolist()

        def owners(name: str) -> Tensor:
            return torch.cat([getattr(part, name) + start for part, start in zip(parts, starts)])

        def factors(name: str) -> tuple[Tensor, Tensor]:
            first, second = zip(*(getattr(part, name) for part in parts))
            return torch.cat(first), torch.cat(second)

        return cls(
            factors("image"),
            factors("text"),
            owners("image_owner"),
            owners("text_owner"),
            torch.cat([part.logit_scale for part in parts]),
            torch.cat([part.logit_bias for part in parts]),
        )

    def mean(self) -> OuterProducts:
        """The mean of the K gradients, K = 1."""
        (a, x), (b, y), count = self.image, self.text, len(self)
        return OuterProducts(
            (a / count, x),
            (b / count, y),
            torch.zeros_like(self.image_owner),
            torch.zeros_like(self.text_owner),
            self.logit_scale.mean(0, keepdim=True),
            self.logit_bias.mean(0, keepdim=True),
        )

    def dense(self, head: Head) -> Tensor:
        """The gradients as vectors (K, P)."""
        result = head.vector().new_zeros(len(self), head.size)
        image, text, _, _ = head.split(result)
        image.index_add_(0, self.image_owner, self.image[0][:, :, None] * self.image[1][:, None, :])
        text.index_add_(0, self.text_owner, self.text[0][:, :, None] * self.text[1][:, None, :])
        scalars = result[:, image[0].numel() + text[0].numel() :]
        scalars[:, 0] = self.logit_scale
        if head.logit_bias is not None:
            scalars[:, 1] = self.logit_bias
        return result


def query_gradient(
    head: Head, image: Tensor, text: Tensor, right: Tensor, kind: str = "margin"
) -> tuple[float, OuterProducts]:
    """A query's target and its gradient.

    The query has similarities S_c to its candidates c, some of which are right. "margin" is S_wrong − S_right of the
    best candidate of either kind, which is above 0 where the query fails; "loss" is −log of the right candidates'
    share of the softmax over all.

    Args:
        head: at θ
        image: (1, F_image), an image that looks for texts, or (C, F_image), the candidates of a text
        text: (C, F_text), the candidates of an image, or (1, F_text), a text that looks for images
        right: bool (C,), the right candidates
        kind: one of :data:`KINDS`

    Returns:
        the target in nats, and its gradient
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    batch = head.linearize(image, text)
    scores = batch.similarity().flatten()
    right = right.to(scores.device)
    if kind == "margin":
        cotangent = torch.zeros_like(scores)
        best = scores.masked_fill(~right, -torch.inf).argmax()
        worst = scores.masked_fill(right, -torch.inf).argmax()
        target = scores[worst] - scores[best]
        cotangent[worst], cotangent[best] = 1.0, -1.0
    else:
        among, others = scores.masked_fill(~right, -torch.inf), scores.masked_fill(right, -torch.inf)
        margin = among.logsumexp(0) - others.logsumexp(0)  # the logit of the right candidates' share
        target = -F.logsigmoid(margin)
        # The wrong candidates' share is computed by itself: 1 less the right ones' cancels where a query succeeds.
        cotangent = (-margin).sigmoid() * (others.softmax(0).nan_to_num() - among.softmax(0))
    pulled = batch.cotangent(cotangent.reshape(1, len(image), len(text)))
    layers = batch.layer_statistics(pulled)

    def part(number: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        inputs, outputs = layers[number].inputs, layers[number].output_gradients[0]
        used = outputs.abs().sum(1) > 0  # the margin depends on two candidates alone
        return (outputs[used], inputs[used]), torch.zeros(int(used.sum()), dtype=torch.int64, device=used.device)

    (image_part, image_owner), (text_part, text_owner) = part(0), part(1)
    bias = torch.zeros(1).to(scores) if pulled.logit_bias is None else pulled.logit_bias
    gradient = OuterProducts(image_part, text_part, image_owner, text_owner, pulled.logit_scale, bias)
    return target.item(), gradient
