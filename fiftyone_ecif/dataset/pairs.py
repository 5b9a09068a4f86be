"""Features of a collection's pairs: by running a model's towers, or from embeddings that the samples store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from fiftyone_ecif.core import HERE, LOSSES, Head, Progress, Workers
from fiftyone_ecif.dataset.rows import Rows
from fiftyone_ecif.features import (
    ArrayPairs,
    PairRow,
    StoredPairs,
    UnreadablePair,
    embed_pairs,
    features_folder,
    stored_embeddings,
)
from fiftyone_ecif.features.reading import check_caption
from fiftyone_ecif.models import ContrastiveModel, ViewAveraged


def embedding_pairs(rows: Rows) -> ArrayPairs:
    """Pairs from embeddings stored on the samples.

    Args:
        rows: read with the fields of both embeddings

    Returns:
        the usable pairs; the others are in ``.skipped`` with their reason

    Raises:
        ValueError: if the two do not live in one space
    """
    faults = {} if rows.texts is None else _caption_faults(rows)
    usable = rows.of(id for id in rows.ids if id not in faults) if faults else rows
    pairs = stored_embeddings(usable.ids, usable.image_embeddings or (), usable.text_embeddings or ())
    pairs.skipped |= faults
    if len(pairs) and pairs.image_dim != pairs.text_dim:
        raise ValueError(
            f"The stored image embeddings have {pairs.image_dim} numbers and the text embeddings {pairs.text_dim}: "
            "both must come from one model's shared space."
        )
    return pairs


def check_width(pairs: StoredPairs | ArrayPairs, others: StoredPairs | ArrayPairs, whose: str) -> None:
    """Raise a ValueError unless ``others``, which are ``whose``, have features as long as the run's pairs have."""
    for name, length, other in (
        ("image", pairs.image_dim, others.image_dim),
        ("text", pairs.text_dim, others.text_dim),
    ):
        if length != other:
            raise ValueError(
                f"The {name} embeddings of {whose} have {other} numbers, and those of the run's pairs {length}: both "
                "must come from one model."
            )


def _caption_faults(rows: Rows) -> dict[str, str]:
    """Why a caption or label cannot be used, by sample id."""
    faults = {}
    for id, text in zip(rows.ids, rows.texts or (), strict=True):
        try:
            check_caption(text)
        except UnreadablePair as error:
            faults[id] = error.reason
    return faults


class PairSource(Protocol):
    """Where the features of a run's pairs come from.

    Attributes:
        name: the model's name; None without a model
        pretrained: its weights; likewise
        load_arguments: of ``load_model`` to make it again; none for one that was made in memory; None without a model
        fingerprint: of the model; likewise
        view_fingerprint: of the model by mild views of its images; likewise
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
    """

    name: str | None
    pretrained: str | None
    load_arguments: dict[str, Any] | None
    fingerprint: str | None
    view_fingerprint: str | None
    loss: str

    def pairs(self, rows: Rows, step: str, skip_failures: bool) -> StoredPairs | ArrayPairs:
        """The usable pairs; ``step`` names the work in progress reports."""
        ...

    def views(self, rows: Rows) -> StoredPairs | None:
        """The same pairs, each image by the mean over mild views of it; None where there is no model."""
        ...

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The head that the pairs' features come with."""
        ...


class TowerSource:
    """Pairs by running a model's towers; a :class:`PairSource`.

    Args:
        model: whose towers
        num_workers: processes that decode images; None to choose
        report: called with the work done
        workers: what runs the towers
        refresh: whether features that are stored are computed again
    """

    def __init__(
        self,
        model: ContrastiveModel,
        num_workers: int | None,
        report: Progress,
        workers: Workers = HERE,
        refresh: bool = False,
    ) -> None:
        self.model, self.num_workers, self.report, self.workers = model, num_workers, report, workers
        self.refresh = refresh
        self.name: str | None = model.name
        self.pretrained: str | None = model.pretrained
        self.load_arguments: dict[str, Any] | None = model.load_arguments or {}
        self.fingerprint: str | None = model.fingerprint
        self.by_views = ViewAveraged(model)
        self.view_fingerprint: str | None = self.by_views.fingerprint
        self.loss = model.loss

    def pairs(self, rows: Rows, step: str, skip_failures: bool) -> StoredPairs:
        """The usable pairs; what was embedded before comes from the store."""
        return self._embed(self.model, rows.pair_rows(), step, skip_failures)

    def views(self, rows: Rows) -> StoredPairs:
        """The same pairs by mild views; those whose views have no embedding are skipped with their reason."""
        return self._embed(self.by_views, rows.pair_rows(), "Embed views", skip_failures=True)

    def _embed(self, model: ContrastiveModel, rows: Sequence[PairRow], step: str, skip_failures: bool) -> StoredPairs:
        return embed_pairs(
            model,
            rows,
            features_folder(),
            num_workers=self.num_workers,
            skip_failures=skip_failures,
            refresh=self.refresh,
            progress=lambda done, total: self.report(step, done, total),
            workers=self.workers,
        )

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The model's own."""
        return self.model.head()


class EmbeddingSource:
    """Pairs from embeddings stored on the samples; a :class:`PairSource`."""

    name: str | None = None
    pretrained: str | None = None
    load_arguments: dict[str, Any] | None = None
    fingerprint: str | None = None
    view_fingerprint: str | None = None
    loss = "clip"

    def pairs(self, rows: Rows, step: str, skip_failures: bool) -> ArrayPairs:
        """The usable pairs.

        Raises:
            ValueError: at the first unusable one, if ``skip_failures`` is False
        """
        pairs = embedding_pairs(rows)
        if pairs.skipped and not skip_failures:
            id, reason = next(iter(pairs.skipped.items()))
            raise ValueError(f"Sample {id}: {reason}. Pass skip_failures=True to leave such pairs out.")
        return pairs

    def views(self, rows: Rows) -> None:
        """None: there is no model to look at the images again."""

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The identity, with the temperature that suits the embeddings."""
        return Head.identity(pairs.image_dim, pairs.text_dim, best_logit_scale(pairs))


def best_logit_scale(pairs: StoredPairs | ArrayPairs, seed: int = 0) -> float:
    """log τ, of those between 0 and log 100, at which a batch of the stored embeddings has the smallest loss.

    Args:
        pairs: with embeddings as features
        seed: of the choice of up to 1,024 pairs

    Returns:
        the logarithm of τ
    """
    index = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))[:1024]
    candidates = np.linspace(0.0, np.log(100.0), 47).tolist()
    if len(index) < 2:
        return candidates[-1]

    def loss(scale: float) -> float:
        head = Head.identity(pairs.image_dim, pairs.text_dim, scale)
        return LOSSES["clip"].sum_loss(head.linearize(*pairs.gather(index)).similarity()).item()

    return min(candidates, key=loss)
