"""Derivatives of the roles along one query's gradient: few outer products, and Ṡ is never formed (ECIF.md §8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.head import Head
from fiftyone_ecif.core.losses import ClipLoss, ContrastiveLoss

KINDS = ("margin", "loss")


@dataclass(frozen=True)
class OuterProducts:
    """Gradients of K scalars by the head's parameters, as sums of outer products.

    Attributes:
        image: (I, D) and (I, F_image), the factors a_p, x_p of the image projection's part Σ_p a_p x_pᵀ
        text: (J, D) and (J, F_text), likewise of the text projection's
        image_owner: int64 (I,), which of the K gradients a product belongs to
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
    def join(cls, parts: list[OuterProducts]) -> OuterProducts:
        """Gradients that were computed one after the other, as one."""
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
        """The mean of the K gradients, as one."""
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

    With the query's similarities S_c to its candidates c, some of which are right: "margin" is S_wrong − S_right for
    the best of each, above 0 where the query fails; "loss" is −log of the right candidates' share of the softmax.

    Args:
        head: at θ
        image: (1, F_image) of an image that looks for texts, or (C, F_image) of the candidates of a text
        text: (C, F_text) or (1, F_text)
        right: bool (C,), the right candidates
        kind: one of :data:`KINDS`

    Returns:
        the target in nats, and its gradient
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}.")
    batch = head.linearize(image, text)
    scores = batch.similarity().flatten()
    if kind == "margin":
        cotangent = torch.zeros_like(scores)
        best = scores.masked_fill(~right, -torch.inf).argmax()
        worst = scores.masked_fill(right, -torch.inf).argmax()
        target = scores[worst] - scores[best]
        cotangent[worst], cotangent[best] = 1.0, -1.0
    else:
        among = scores.masked_fill(~right, -torch.inf)
        target = scores.logsumexp(0) - among.logsumexp(0)
        cotangent = scores.softmax(0) - among.softmax(0)
    pulled = batch.cotangent(cotangent.reshape(1, len(image), len(text)))
    layers = batch.layer_statistics(pulled)

    def part(number: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        inputs, outputs = layers[number].inputs, layers[number].output_gradients[0]
        used = outputs.abs().sum(1) > 0  # the margin looks at two candidates alone
        return (outputs[used], inputs[used]), torch.zeros(int(used.sum()), dtype=torch.int64)

    (image_part, image_owner), (text_part, text_owner) = part(0), part(1)
    bias = torch.zeros(1).to(scores) if pulled.logit_bias is None else pulled.logit_bias
    gradient = OuterProducts(image_part, text_part, image_owner, text_owner, pulled.logit_scale, bias)
    return target.item(), gradient


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch as its traces need it.

    Args:
        image: (B, D), u_n
        text: (B, D), v_n
        image_input: (B, F_image), x_n over the norm of W x_n
        text_input: (B, F_text), y_n likewise
        products: (B, B), τ u_i·v_j, which is S without its bias
    """

    image: Tensor
    text: Tensor
    image_input: Tensor
    text_input: Tensor
    products: Tensor


@dataclass(frozen=True)
class FactoredTangent:
    """Ṡ^k_ij = Σ_p left_ip right_jp + (rows_ik + columns_jk) τ u_i·v_j over the products p that k owns.

    Args:
        left: (B, p)
        right: (B, p)
        owner: int64 (p,)
        rows: (B, K)
        columns: (B, K)
        products: (B, B), τ u_i·v_j
    """

    left: Tensor
    right: Tensor
    owner: Tensor
    rows: Tensor
    columns: Tensor
    products: Tensor

    @classmethod
    def along(cls, batch: EmbeddedBatch, gradients: OuterProducts, scale: float) -> FactoredTangent:
        """Ṡ along K gradients: τ (u̇_i·v_j + u_i·v̇_j) + τ̇ u_i·v_j, u̇_i = Σ_p (x_i·x_p) (I − u_i u_iᵀ) a_p / ‖w_i‖.

        Args:
            batch: at θ
            gradients: K of them
            scale: τ
        """
        (a, x), (b, y) = gradients.image, gradients.text
        count = len(gradients)
        alpha, gamma = _times(batch.image_input, x.T), _times(batch.text_input, y.T)
        image_b, image_a = _times(batch.image, torch.cat([b, a]).T).split([len(b), len(a)], 1)
        text_a, text_b = _times(batch.text, torch.cat([a, b]).T).split([len(a), len(b)], 1)
        owner = torch.cat([gradients.image_owner, gradients.text_owner])
        left, right = torch.cat([alpha, scale * image_b], 1), torch.cat([scale * text_a, gamma], 1)
        rows = gradients.logit_scale - _by_owner(alpha * image_a, gradients.image_owner, count)
        columns = -_by_owner(gamma * text_b, gradients.text_owner, count)
        tangent = cls(left, right, owner, rows, columns, batch.products)
        bias = gradients.logit_bias
        return tangent.plus_rows(bias.expand(len(rows), -1)) if bias.any() else tangent

    def plus_rows(self, values: Tensor) -> FactoredTangent:
        """Ṡ^k_ij + values_ik, values (B, K)."""
        return FactoredTangent(
            torch.cat([self.left, values], 1),
            torch.cat([self.right, torch.ones_like(values)], 1),
            torch.cat([self.owner, torch.arange(values.shape[1], device=self.owner.device)]),
            self.rows,
            self.columns,
            self.products,
        )

    @property
    def transposed(self) -> FactoredTangent:
        """Ṡᵀ."""
        return FactoredTangent(self.right, self.left, self.owner, self.columns, self.rows, self.products.T)

    def row_sums(self, weights: Tensor) -> Tensor:
        """Σ_j w_ij Ṡ^k_ij, (B, K)."""
        sums = _by_owner(self.left * _times(weights, self.right), self.owner, self.rows.shape[1])
        ones = torch.ones_like(self.columns[:, :1])
        weighted = _times(weights * self.products, torch.cat([ones, self.columns], 1))
        return sums + self.rows * weighted[:, :1] + weighted[:, 1:]

    def entries(self, columns: Tensor) -> Tensor:
        """Ṡ^k at one column of every row, (B, K)."""
        at = torch.arange(len(columns), device=columns.device)
        sums = _by_owner(self.left * self.right[columns], self.owner, self.rows.shape[1])
        return sums + (self.rows + self.columns[columns]) * self.products[at, columns, None]


def role_derivatives_along(
    loss: ContrastiveLoss, similarity: Tensor, tangent: FactoredTangent, removal: str
) -> tuple[Tensor, Tensor]:
    """Derivatives of pos_n and of the negative role along Ṡ, (B, K) each  (ECIF.md §4, §8).

    Args:
        loss: of the batch
        similarity: (B, B), S
        tangent: Ṡ
        removal: "exact" or "first_order"
    """
    own = torch.arange(len(similarity), device=similarity.device)
    if isinstance(loss, ClipLoss):
        row = _softmax_side(similarity, tangent, own, removal)
        column = _softmax_side(similarity.T.contiguous(), tangent.transposed, own, removal)
        return 0.5 * (row[0] + column[0]), 0.5 * (row[1] + column[1])
    cells = loss.similarity_cotangent(similarity)
    positive = cells.diagonal()[:, None] * tangent.entries(own)
    cells.diagonal().zero_()
    return positive, tangent.row_sums(cells) + tangent.transposed.row_sums(cells.T)


def _softmax_side(similarity: Tensor, tangent: FactoredTangent, own: Tensor, removal: str) -> tuple[Tensor, Tensor]:
    """One direction of the softmax loss; see ``ClipLoss._add_row_derivatives``, whose care for P > ½ is kept."""
    probability = similarity.softmax(1)
    top = similarity.argmax(1)
    largest = probability[own, top][:, None]
    probability[own, top] = 0.0
    others = probability.sum(1, keepdim=True)  # 1 − P_top, without cancellation
    at_top = tangent.entries(top)
    others_sum = tangent.row_sums(probability)  # Σ_{j≠top} P_ij Ṡ_ij
    m = largest * at_top + others_sum
    positive = m - tangent.entries(own)
    probability[own, own] = 0.0
    weights = probability / (1.0 - probability) if removal == "exact" else probability
    negative = tangent.plus_rows(-m).transposed.row_sums(weights.T)  # Σ_i w_in (Ṡ_in − m_i)
    # Deleting a row's largest candidate: P/(1 − P) (Ṡ_top − m_i) = P (Ṡ_top − mean of the row without it)
    change = at_top - (others_sum / others if removal == "exact" else m)
    change = torch.where((top == own)[:, None] | (others == 0), torch.zeros_like(change), largest * change)
    return positive, negative.index_add(0, top, change)


def _by_owner(products: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, p) summed to (B, K)."""
    return products.new_zeros(len(products), count).index_add_(1, owner, products)


def _times(matrix: Tensor, thin: Tensor) -> Tensor:
    """Their product; BLAS is several times as fast with a thin factor first."""
    return (thin.T @ matrix.T).T
