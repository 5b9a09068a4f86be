"""Pairs out of a dataset: rows to embed, or embeddings that are already stored on the samples."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.core import HERE, LOSSES, Head, Progress, Workers
from fiftyone_ecif.dataset.checks import check_field, check_text_field, is_classification_field
from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.features import ArrayPairs, PairRow, StoredPairs, embed_pairs, features_folder, stored_embeddings
from fiftyone_ecif.models import ContrastiveModel, ViewAveraged, load_model

DEFAULT_TEMPLATES = ("a photo of a {}",)


def pair_rows(
    samples: SampleCollection,
    text_field: str,
    templates: Sequence[str] | None = None,
    texts: Mapping[str, str | None] | None = None,
) -> list[PairRow]:
    """The collection's pairs, in its order.

    Args:
        samples: Dataset or view of images
        text_field: a StringField, or a Classification field whose labels are put into templates
        templates: with ``{}`` where the label goes; each sample gets one of them, always the same
        texts: caption or label by sample id, in place of the field's

    Returns:
        one :class:`PairRow` per sample, the caption None where the field is empty

    Raises:
        ValueError: if the field cannot serve, or a template has no ``{}``
    """
    check_text_field(samples, text_field)
    if not is_classification_field(samples, text_field):
        if templates:
            raise ValueError(f"templates go with a Classification field; {text_field!r} holds captions already.")
        ids, filepaths, captions = samples.values(["id", "filepath", text_field])
        if texts is not None:
            captions = [texts[id] for id in ids]
        return [PairRow(*row) for row in zip(ids, filepaths, captions, strict=True)]
    templates = tuple(templates or DEFAULT_TEMPLATES)
    without = [template for template in templates if "{}" not in template]
    if without:
        raise ValueError(f"Template {without[0]!r} has no {{}} for the label.")
    ids, filepaths, labels = samples.values(["id", "filepath", f"{text_field}.label"])
    if texts is not None:
        labels = [texts[id] for id in ids]
    return [
        PairRow(id, filepath, None if label is None else _template(id, templates).replace("{}", label))
        for id, filepath, label in zip(ids, filepaths, labels, strict=True)
    ]


def embedding_pairs(samples: SampleCollection, image_embeddings: str, text_embeddings: str) -> ArrayPairs:
    """Pairs from embeddings stored on the samples.

    Args:
        samples: Dataset or view
        image_embeddings: field with a vector of floats per sample
        text_embeddings: likewise, of the same length

    Returns:
        the usable pairs; the others are in ``.skipped`` with their reason

    Raises:
        ValueError: if a field does not exist, or the two do not live in one space
    """
    for name in (image_embeddings, text_embeddings):
        check_field(samples, name)
    ids, image, text = samples.values(["id", image_embeddings, text_embeddings])
    pairs = stored_embeddings(ids, image, text)
    if len(pairs) and pairs.image_dim != pairs.text_dim:
        raise ValueError(
            f"{image_embeddings!r} holds vectors of {pairs.image_dim} numbers and {text_embeddings!r} of "
            f"{pairs.text_dim}: image and text embeddings must come from one model's shared space."
        )
    return pairs


def _template(id: str, templates: Sequence[str]) -> str:
    """The sample's template: chosen by its id, so that a second run asks for the same captions."""
    return templates[int(hashlib.sha256(id.encode()).hexdigest(), 16) % len(templates)]


class PairSource(Protocol):
    """Where a run's pairs come from.

    Attributes:
        name: the model's name; None without a model
        pretrained: its weights; likewise
        fingerprint: of the model; likewise
        view_fingerprint: of the model by mild views of its images; likewise
        loss: a key of :data:`~fiftyone_ecif.core.LOSSES`
    """

    name: str | None
    pretrained: str | None
    fingerprint: str | None
    view_fingerprint: str | None
    loss: str

    def pairs(self, samples: SampleCollection, step: str, skip_failures: bool) -> StoredPairs | ArrayPairs:
        """The usable pairs of a collection; ``step`` names the work in progress reports."""
        ...

    def views(self, pairs: StoredPairs | ArrayPairs, samples: SampleCollection) -> StoredPairs | None:
        """The same pairs, each image by the mean over mild views of it; None where that cannot be had."""
        ...

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The head that the pairs' features come with."""
        ...


class TowerSource:
    """Pairs by running a model's towers; a :class:`PairSource`.

    Args:
        model: whose towers
        text_field: field with captions or labels
        templates: for labels
        num_workers: processes that decode images; None to choose
        report: called with the work done
        workers: what runs the towers
    """

    def __init__(
        self,
        model: ContrastiveModel,
        text_field: str,
        templates: Sequence[str] | None,
        num_workers: int | None,
        report: Progress,
        workers: Workers = HERE,
    ) -> None:
        self.model, self.text_field, self.templates = model, text_field, templates
        self.num_workers, self.report, self.workers = num_workers, report, workers
        self.name: str | None = model.name
        self.pretrained: str | None = model.pretrained
        self.fingerprint: str | None = model.fingerprint
        self.by_views = ViewAveraged(model)
        self.view_fingerprint: str | None = self.by_views.fingerprint
        self.loss = model.loss

    def pairs(self, samples: SampleCollection, step: str, skip_failures: bool) -> StoredPairs:
        """The usable pairs; what was embedded before comes from the store."""
        return self._embed(self.model, pair_rows(samples, self.text_field, self.templates), step, skip_failures)

    def views(self, pairs: StoredPairs | ArrayPairs, samples: SampleCollection) -> StoredPairs | None:
        """The same pairs by mild views; None if a view of some image has no embedding."""
        usable = set(pairs.ids)
        rows = [row for row in pair_rows(samples, self.text_field, self.templates) if row.id in usable]
        views = self._embed(self.by_views, rows, "Embed views", skip_failures=True)
        return views if views.ids == pairs.ids else None

    def _embed(self, model: ContrastiveModel, rows: Sequence[PairRow], step: str, skip_failures: bool) -> StoredPairs:
        return embed_pairs(
            model,
            rows,
            features_folder(),
            num_workers=self.num_workers,
            skip_failures=skip_failures,
            progress=lambda done, total: self.report(step, done, total),
            workers=self.workers,
        )

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The model's own."""
        return self.model.head()


class EmbeddingSource:
    """Pairs from embeddings stored on the samples; a :class:`PairSource`.

    Args:
        image_embeddings: field with image embeddings
        text_embeddings: field with text embeddings
    """

    def __init__(self, image_embeddings: str, text_embeddings: str) -> None:
        self.image_embeddings, self.text_embeddings = image_embeddings, text_embeddings
        self.name: str | None = None
        self.pretrained: str | None = None
        self.fingerprint: str | None = None
        self.view_fingerprint: str | None = None
        self.loss = "clip"

    def pairs(self, samples: SampleCollection, step: str, skip_failures: bool) -> ArrayPairs:
        """The usable pairs.

        Raises:
            ValueError: at the first unusable one, if ``skip_failures`` is False
        """
        pairs = embedding_pairs(samples, self.image_embeddings, self.text_embeddings)
        if pairs.skipped and not skip_failures:
            id, reason = next(iter(pairs.skipped.items()))
            raise ValueError(f"Sample {id}: {reason}. Pass skip_failures=True to leave such pairs out.")
        return pairs

    def views(self, pairs: StoredPairs | ArrayPairs, samples: SampleCollection) -> None:
        """None: there is no model to look at the images again."""

    def head(self, pairs: StoredPairs | ArrayPairs) -> Head:
        """The identity, with the temperature that suits the embeddings."""
        return Head.identity(pairs.image_dim, pairs.text_dim, best_logit_scale(pairs))


def load_run_model(config: EcifConfig) -> ContrastiveModel:
    """The model of a run, as it was given.

    Raises:
        ValueError: if its weights are not those any more
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the run has said it
        model = load_model(config.model, config.pretrained, config.device)
    if model.fingerprint != config.model_fingerprint:
        raise ValueError(
            f"The weights behind {config.model!r} ({config.pretrained}) are not those of the run: "
            "put the checkpoint back, or compute the run again."
        )
    return model


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
