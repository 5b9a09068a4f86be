"""The head scope: the towers' last projections, the logit scale and, for sigmoid losses, the logit bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fiftyone_ecif.core.scope import Cotangent, LayerStatistics, Linearization, Scope, Tangent, product


@dataclass(frozen=True)
class Head(Scope):
    """Two linear projections and a logit scale, on top of cached tower features (ECIF.md, Notation).

    A projection with a bias is held as one matrix: its features carry a trailing coordinate of ones.

    Args:
        image_weight: (D, F_image), maps image features to the shared space before normalisation
        text_weight: (D, F_text), the same for texts
        logit_scale: (), the logarithm of τ
        logit_bias: (), only for the sigmoid loss of SigLIP; None for the softmax loss of CLIP
    """

    image_weight: Tensor
    text_weight: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.image_weight.shape[0] != self.text_weight.shape[0]:
            raise ValueError(
                f"The two projections end in different spaces: image {tuple(self.image_weight.shape)}, "
                f"text {tuple(self.text_weight.shape)}. Both need the same number of rows."
            )

    @classmethod
    def identity(cls, image_dim: int, text_dim: int, logit_scale: float, dtype: torch.dtype = torch.float32) -> Head:
        """A head that hands features on unchanged, for models without a projection and for stored embeddings.

        Args:
            image_dim: length of an image feature
            text_dim: length of a text feature; must equal ``image_dim``
            logit_scale: the logarithm of τ to start from
            dtype: of the weights

        Returns:
            a :class:`Head`

        Raises:
            ValueError: if the two lengths differ
        """
        if image_dim != text_dim:
            raise ValueError(
                f"Image embeddings have {image_dim} numbers and text embeddings {text_dim}; they must agree."
            )
        eye = torch.eye(image_dim, dtype=dtype)
        return cls(eye, eye.clone(), torch.tensor(logit_scale, dtype=dtype))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.vector().numel()

    def vector(self) -> Tensor:
        """All parameters as one vector (P,): image weight, text weight, logit scale, logit bias."""
        parts = [self.image_weight.reshape(-1), self.text_weight.reshape(-1), self.logit_scale.reshape(1)]
        if self.logit_bias is not None:
            parts.append(self.logit_bias.reshape(1))
        return torch.cat(parts)

    def split(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Vectors (..., P) as (..., D, F_image), (..., D, F_text), (...,) and (...,) or None."""
        lead = vectors.shape[:-1]
        n_image, n_text = self.image_weight.numel(), self.text_weight.numel()
        image, text, scalars = torch.split(vectors, [n_image, n_text, vectors.shape[-1] - n_image - n_text], dim=-1)
        bias = scalars[..., 1] if self.logit_bias is not None else None
        return (
            image.reshape(*lead, *self.image_weight.shape),
            text.reshape(*lead, *self.text_weight.shape),
            scalars[..., 0],
            bias,
        )

    def replace(self, vector: Tensor) -> Head:
        """The head with the parameters of ``vector`` (P,)."""
        return Head(*self.split(vector))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Head:
        """The head on another device or in another dtype."""
        return self.replace(self.vector().to(device=device, dtype=dtype))

    def linearize(self, image_input: Tensor, text_input: Tensor) -> HeadLinearization:
        """Embed one batch and keep what its tangents and pull-backs need.

        Args:
            image_input: (B, F_image) tower features
            text_input: (B, F_text) tower features

        Returns:
            a :class:`HeadLinearization`
        """
        return HeadLinearization(self, image_input.to(self.image_weight), text_input.to(self.text_weight))


def _normalise(raw: Tensor) -> tuple[Tensor, Tensor]:
    """u = w / ‖w‖ and ‖w‖ (kept as a column), safe at zero."""
    norm = raw.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(raw.dtype).tiny ** 0.5)
    return raw / norm, norm


class HeadLinearization(Linearization):
    """u_n = normalise(W_image x_n), v_n = normalise(W_text y_n) around the head's parameters."""

    def __init__(self, head: Head, image_input: Tensor, text_input: Tensor) -> None:
        self.head, self.image_input, self.text_input = head, image_input, text_input
        self.image, self.image_norm = _normalise(product(image_input, head.image_weight.T))
        self.text, self.text_norm = _normalise(product(text_input, head.text_weight.T))
        self.logit_scale, self.logit_bias = head.logit_scale, head.logit_bias

    def tangent(self, directions: Tensor) -> Tangent:
        image, text, scale, bias = self.head.split(directions)
        return Tangent(
            self._project(product(self.image_input, image.mT), self.image, self.image_norm),
            self._project(product(self.text_input, text.mT), self.text, self.text_norm),
            scale,
            bias,
        )

    def pull_back(self, cotangent: Cotangent) -> Tensor:
        layers = self.layer_statistics(cotangent)
        return torch.cat([(layer.output_gradients.mT @ layer.inputs).flatten(-2) for layer in layers], dim=-1)

    def layer_statistics(self, cotangent: Cotangent) -> list[LayerStatistics]:
        # The projector (I − u uᵀ)/‖w‖ is symmetric: the same map serves tangents and cotangents.
        parts = [
            (self.image_input, self._project(cotangent.image, self.image, self.image_norm)),
            (self.text_input, self._project(cotangent.text, self.text, self.text_norm)),
        ]
        # A scalar parameter is a layer of one weight that was fed a one.
        one = self.logit_scale.new_ones(1, 1)
        parts += [(one, scalar[..., None, None]) for scalar in cotangent[2:] if scalar is not None]
        layers, position = [], 0
        for inputs, output_gradients in parts:
            layers.append(LayerStatistics(position, inputs, output_gradients))
            position += inputs.shape[-1] * output_gradients.shape[-1]
        return layers

    @staticmethod
    def _project(raw: Tensor, unit: Tensor, norm: Tensor) -> Tensor:
        """(I − u uᵀ) ẇ / ‖w‖, the derivative of the normalisation."""
        return (raw - (raw * unit).sum(-1, keepdim=True) * unit) / norm
