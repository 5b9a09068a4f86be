"""The first two steps of a run: the snapshot that it stands on, and the features of its pairs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import Attributed
from fiftyone_ecif.core import Head, Progress, Workers
from fiftyone_ecif.dataset.chosen_scope import attributed_scope, check_scope
from fiftyone_ecif.dataset.compute.request import RunRequest
from fiftyone_ecif.dataset.pairs import EmbeddingSource, PairSource, TowerSource, check_width
from fiftyone_ecif.dataset.rows import Rows, read_rows
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.features import ArrayPairs, StoredPairs
from fiftyone_ecif.models import ContrastiveModel, load_model
from fiftyone_ecif.notes import note


@dataclass(frozen=True)
class Taken:
    """The snapshot that a run stands on.

    Attributes:
        rows: of the samples
        target_rows: of the target; None to cross-fit
        at: when it was read, in UTC
        trusted_tag: what marked rows as trusted
    """

    rows: Rows
    target_rows: Rows | None
    at: datetime
    trusted_tag: str


def read(samples: SampleCollection, request: RunRequest) -> Taken:
    """Read the samples and the target, once.

    Raises:
        ValueError: if a field cannot serve, or a sample is in both
    """
    fields = request.text_field, request.templates, request.image_embeddings, request.text_embeddings
    at = datetime.now(timezone.utc)
    turned = request.apply_orientation
    rows = read_rows(samples, *fields, apply_orientation=turned)
    target_rows = None if request.target is None else read_rows(request.target, *fields, apply_orientation=turned)
    for what, read_once in (("samples", rows), ("target", target_rows)):
        repeated = 0 if read_once is None else len(read_once) - len(set(read_once.ids))
        if repeated:
            raise ValueError(
                f"{what} holds {repeated} samples more than once: each pair can be scored once. Pass a view without "
                "repetitions, such as dataset.select(view.values('id'))."
            )
    if target_rows is not None and (shared := set(rows.ids) & set(target_rows.ids)):
        raise ValueError(
            f"{len(shared)} samples are both scored and in the target. A pair cannot be judged by its own loss: "
            "take them out of one of the two."
        )
    return Taken(rows, target_rows, at, tags_of(samples).trusted)


@dataclass(frozen=True)
class Embedded:
    """Features of the usable pairs.

    Attributes:
        source: where they come from
        head: that they come with
        pairs: of the samples
        target_pairs: of the target; None to cross-fit
        views: of the samples, each image by the mean over mild views of it; None without a model
        attributed: the scope, with the inputs that it takes
        rows: of ``pairs``, in their order
        target_rows: of ``target_pairs``, likewise
    """

    source: PairSource
    head: Head
    pairs: StoredPairs | ArrayPairs
    target_pairs: StoredPairs | ArrayPairs | None
    views: StoredPairs | None
    attributed: Attributed
    rows: Rows
    target_rows: Rows | None


def embed(taken: Taken, request: RunRequest, device: str, report: Progress, workers: Workers) -> Embedded:
    """Features of the snapshot's pairs, and the scope that is attributed to.

    Raises:
        ValueError: if there is no such model or scope, or a pair cannot be used and may not be skipped
    """
    source = source_of(request, device, report, workers)
    check_scope(source, request.scope)
    pairs = source.pairs(taken.rows, "Embed", request.skip_failures)
    _check_usable(pairs, "samples", request)
    target_pairs = target_rows = None
    if taken.target_rows is not None:
        target_pairs = source.pairs(taken.target_rows, "Embed target", request.skip_failures)
        _check_usable(target_pairs, "target samples", request)
        check_width(pairs, target_pairs, "the target")
        target_rows = taken.target_rows.of(target_pairs.ids)
    rows = taken.rows.of(pairs.ids)
    views = source.views(rows)
    head = source.head(pairs)
    if isinstance(source, TowerSource) and request.scope != "head":
        attributed = attributed_scope(
            source.model, request.scope, rows, target_rows, request.settings().batch_size, request.seed, report
        )
    else:
        attributed = Attributed.of_head(head, pairs, target_pairs)
    if views is not None and views.ids != pairs.ids:
        note(
            f"{len(pairs) - len(views)} images could not be read a second time, so that misalignment was judged "
            "without mild views of the images. Compute the run again when they are back."
        )
        views = None
    return Embedded(source, head, pairs, target_pairs, views, attributed, rows, target_rows)


def _check_usable(pairs: StoredPairs | ArrayPairs, what: str, request: RunRequest) -> None:
    """Raise a ValueError that says why, and for which sample, if none is left."""
    if len(pairs) == 0:
        id, reason = next(iter(pairs.skipped.items()))
        named = (request.image_embeddings, request.text_embeddings, request.text_field)
        fields = ", ".join(repr(name) for name in named if name is not None)
        raise ValueError(
            f"None of the {len(pairs.skipped)} {what} can be used. Sample {id}, for example: {reason}. The fields that "
            f"were read are {fields}."
        )


def source_of(request: RunRequest, device: str, report: Progress, workers: Workers) -> PairSource:
    """Where the features of the pairs come from."""
    if request.image_embeddings is not None:
        return EmbeddingSource()
    model = request.model
    if not isinstance(model, ContrastiveModel):
        model = load_model(model, request.weights, device, preprocess=request.preprocess)
    elif request.preprocess is not None:
        raise ValueError("preprocess goes with a model that is loaded by its name: this one has its own already.")
    num_workers = request.num_workers if request.engine == "local" else None
    return TowerSource(model, num_workers, report, workers, request.refresh_features)
