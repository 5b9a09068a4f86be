"""The interface of parameter scopes: a batch's embeddings, their tangents and their pull-backs (ECIF.md, Notation)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

AnyScope = TypeVar("AnyScope", bound="Scope")


def product(left: Tensor, right: Tensor) -> Tensor:
    """The matrix product in its left factor's dtype, also where ``torch.autocast`` multiplies in bfloat16."""
    return (left @ right).to(left.dtype)


class Tangent(NamedTuple):
    """Derivative of a batch's embeddings along K directions: (K, B, D), (K, B, D), (K,), (K,) or None."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None = None


class Cotangent(NamedTuple):
    """Derivative of K scalars by a batch's embeddings: (K, B, D), (K, B, D), (K,), (K,) or None."""

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None = None


class Factors(NamedTuple):
    """S or Ṡ as left rightᵀ + bias, from which rows can be computed without the whole matrix.

    Attributes:
        left: (..., B, R), of the images
        right: (..., B, R), of the texts
        bias: (..., 1, 1) or None
    """

    left: Tensor
    right: Tensor
    bias: Tensor | None

    @property
    def transposed(self) -> Factors:
        """Sᵀ or Ṡᵀ."""
        return Factors(self.right, self.left, self.bias)

    def rows(self, part: slice = slice(None)) -> Tensor:
        """The rows in ``part``, (..., b, B)."""
        result = product(self.left[..., part, :], self.right.mT)
        return result if self.bias is None else result.add_(self.bias)


class LayerStatistics(NamedTuple):
    """One linear layer's part in the gradients of K scalars, from which Kronecker factors are made (ECIF.md §5).

    Attributes:
        position: where the layer's weight (rows, columns), flattened, starts in the parameter vector
        inputs: (T, columns), the layer's inputs
        output_gradients: (K, T, rows), the derivatives of the scalars by the layer's outputs
    """

    position: int
    inputs: Tensor
    output_gradients: Tensor


class Linearization(ABC):
    """The embeddings of one batch at θ, with their derivatives.

    Attributes:
        image: (B, D) unit vectors u_n
        text: (B, D) unit vectors v_n
        logit_scale: (), log τ
        logit_bias: () or None
    """

    image: Tensor
    text: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None

    def similarity(self) -> Tensor:
        """S_ij = τ u_i·v_j (+ bias), shape (B, B), rows are images (ECIF.md, Notation)."""
        return self.similarity_factors().rows()

    def similarity_factors(self) -> Factors:
        """S as :class:`Factors`."""
        return Factors(self.logit_scale.exp() * self.image, self.text, self.logit_bias)

    def similarity_tangent(self, directions: Tensor) -> Tensor:
        """Ṡ_ij = τ (u̇_i·v_j + u_i·v̇_j) + τ̇/τ S_ij (+ bias tangent) for directions (K, P): (K, B, B) (ECIF.md §4)."""
        return self.tangent_factors(directions).rows()

    def tangent_factors(self, directions: Tensor) -> Factors:
        """Ṡ along directions (K, P) as :class:`Factors`."""
        tangent = self.tangent(directions)
        # One product of doubled depth in place of two: τ [u̇ + τ̇/τ u, u] · [v, v̇].
        left = torch.cat(
            [tangent.image + tangent.logit_scale[:, None, None] * self.image, self.image.expand_as(tangent.image)],
            dim=-1,
        )
        right = torch.cat([self.text.expand_as(tangent.text), tangent.text], dim=-1)
        bias = None if tangent.logit_bias is None else tangent.logit_bias[:, None, None]
        return Factors(self.logit_scale.exp() * left, right, bias)

    def cotangent(self, similarity_cotangent: Tensor) -> Cotangent:
        """The cotangents of the embeddings, ū = τ S̄ v and v̄ = τ S̄ᵀ u, and of the scalars, from S̄ (K, B, B)."""
        total = similarity_cotangent.sum((-1, -2)) if self.logit_bias is not None else None
        return self.carried(similarity_cotangent @ self.text, similarity_cotangent.mT @ self.image, total)

    def carried(self, image: Tensor, text: Tensor, total: Tensor | None) -> Cotangent:
        """:meth:`cotangent` from S̄ v and S̄ᵀ u, (K, B, D) each, and Σ S̄, (K,)."""
        scale = self.logit_scale.exp()
        image, text = scale * image, scale * text
        return Cotangent(image, text, (image * self.image).sum((-1, -2)), None if self.logit_bias is None else total)

    @abstractmethod
    def tangent(self, directions: Tensor) -> Tangent:
        """Forward mode: from directions (K, P) in the parameters to tangents of the embeddings."""

    @abstractmethod
    def pull_back(self, cotangent: Cotangent) -> Tensor:
        """Reverse mode: from cotangents of the embeddings to gradients (K, P) by the parameters."""

    @abstractmethod
    def layer_statistics(self, cotangent: Cotangent) -> Iterable[LayerStatistics]:
        """The linear layers' inputs and output gradients, of which :meth:`pull_back` is made.

        A layer may come in several parts, which then follow one another along T.
        """


class Scope(ABC):
    """A choice of parameters θ, and the embeddings as a function of them."""

    @abstractmethod
    def vector(self) -> Tensor:
        """θ as one vector (P,)."""

    @abstractmethod
    def replace(self: AnyScope, vector: Tensor) -> AnyScope:
        """The same scope at another θ, (P,)."""

    @abstractmethod
    def to(self: AnyScope, device: torch.device | str) -> AnyScope:
        """The same scope on another device."""

    @abstractmethod
    def linearize(self, image_input: Tensor, text_input: Tensor) -> Linearization:
        """Embed one batch of inputs at θ, with what its derivatives need."""
