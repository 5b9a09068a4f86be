"""How much likelier an image and a text are together than by chance, by a head that was not fitted on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fiftyone_ecif.core import Head, Pairs, embeddings_under
from fiftyone_ecif.detect.nearest_rows import nearest

NEIGHBOURS = 10
"""Nearest images whose texts speak for a text."""

SAMPLE = 1024
"""Pairs that scales and means are estimated from, so that N pairs cost N."""

NORMALISATIONS = 2
"""How often the mean ratios of images and of texts are set to 1 in turn."""

STEPS = 20
"""Of the search for the scales."""

CHUNK = 4096
"""Images or texts that are compared with the sample together."""


@dataclass(frozen=True)
class TextFit:
    """What one head says of images that it was not fitted on, and of all texts.

    Attributes:
        image: (A, 2, D), of each image that is asked about: its embedding, and the mean text of its nearest images as
            far as they are believed, about the mean of all texts; times the logit scale
        text: (C, D), the distinct texts
        drawn: (S, 2, D), the same as ``image`` of a sample of the images
        said: int64 (S,), the texts of these
        right: (S,), how likely these are right
        by_itself: (S, S), what each text of the sample adds to its own fit because an image next to it has it
    """

    image: Tensor
    text: Tensor
    drawn: Tensor
    said: Tensor
    right: Tensor
    by_itself: Tensor

    def ratios(self, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors x_n of the images and y_c of the texts with p(n, c) / p(n) p(c) = exp(x_n · y_c).

        The ratio is proportional to exp(τ (a u_n + b s_n)·v_c), with s_n the mean text of the nearest images. Its mean
        over texts is 1 for each image, and that over images is 1 for each text: so a text that fits any image well
        gains nothing by it.

        Args:
            scales: (2,), a and b

        Returns:
            (A, D + 2) and (C, D + 2)
        """
        images, drawn = (torch.einsum("s,nsd->nd", scales, part) for part in (self.image, self.drawn))
        of_drawn = torch.zeros(len(drawn))
        for _ in range(NORMALISATIONS):
            of_text = -_log_means(self.text, drawn, of_drawn)
            of_drawn = -_log_means(drawn, self.text[self.said], of_text[self.said])
        of_image = -_log_means(images, self.text[self.said], of_text[self.said])
        return (
            torch.cat([images, of_image[:, None], torch.ones(len(images), 1)], 1),
            torch.cat([self.text, torch.ones(len(self.text), 1), of_text[:, None]], 1),
        )


def text_fit(
    pairs: Pairs, head: Head, asked: Tensor, held_out: Tensor, place: Tensor, right: Tensor, seed: int
) -> TextFit:
    """Read what a head says.

    Args:
        pairs: the features of the N pairs
        head: the head
        asked: int64 (A,), the pairs whose images are asked about
        held_out: int64, all pairs that the head was not fitted on, of which a sample is drawn
        place: int64 (N,), which of the C distinct texts each pair has
        right: float32 (N,), how likely the text of each pair is right
        seed: of the sample

    Returns:
        :class:`TextFit`
    """
    image, text = (part.float().cpu() for part in embeddings_under(pairs, head))
    drawn = held_out[torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))[:SAMPLE]]
    rows = torch.cat([asked, drawn])
    near = nearest(image, min(NEIGHBOURS, len(image) - 1), seed, rows)
    weight = right[near] / right[near].sum(1, keepdim=True).clamp_min(1e-9)
    mean = -text.mean(0).repeat(len(rows), 1)
    for number in range(near.shape[1]):
        mean += weight[:, number, None] * text[near[:, number]]
    tau = head.logit_scale.exp().cpu()
    both = tau * torch.stack([image[rows], mean], 1)
    distinct = torch.empty(int(place.max()) + 1, text.shape[1])
    distinct[place] = text
    said, beside = place[drawn], near[len(asked) :]
    by_itself = torch.zeros(len(drawn), len(drawn))
    for number in range(near.shape[1]):
        by_itself += weight[len(asked) :, number, None] * (beside[:, number, None] == drawn)
    return TextFit(both[: len(asked)], distinct, both[len(asked) :], said, right[drawn], tau * by_itself)


def likeliest_scales(fits: Sequence[TextFit]) -> Tensor:
    """The a and b of :meth:`TextFit.ratios` under which the believed texts of the sample are likeliest.

    They maximise Σ_n p(text n is right) log p(text n | image n) over the samples, with p(· | image) among the texts of
    the sample. A text that an image next to n has because it is that image's own does not count for n through it.

    Args:
        fits: of the heads

    Returns:
        (2,)
    """
    parts = []
    for fit in fits:
        texts = fit.text[fit.said]
        logits = torch.stack([fit.drawn[:, 0] @ texts.T, fit.drawn[:, 1] @ texts.T - fit.by_itself])
        parts.append((logits, fit.said[:, None] != fit.said, fit.right))
    scales = torch.tensor([0.5, 0.2]).requires_grad_()
    search: Any = torch.optim.LBFGS([scales], max_iter=STEPS, line_search_fn="strong_wolfe")  # it has no types

    def negative_likelihood() -> Tensor:
        search.zero_grad()
        loss = torch.zeros(())
        for logits, other, right in parts:
            mixed = torch.einsum("s,snc->nc", scales, logits)
            own = mixed.masked_fill(other, -torch.inf).logsumexp(1) - mixed.logsumexp(1)
            loss = loss - (right * own).sum() / right.sum().clamp_min(1e-9)
        torch.autograd.backward(loss)
        return loss

    search.step(negative_likelihood)
    return scales.detach().clamp_min(0.0)


def _log_means(rows: Tensor, sample: Tensor, of_sample: Tensor) -> Tensor:
    """log mean_s exp(row · s + of_s) over a sample, for each row."""
    parts = [(part @ sample.T + of_sample).logsumexp(1) for part in torch.split(rows, CHUNK)]
    return torch.cat(parts) - torch.tensor(float(len(sample))).log()
