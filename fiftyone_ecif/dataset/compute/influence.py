"""From a dataset to scores on its samples: the one job that everything else stands on."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import Attributed, InfluenceOutcome, Settings, compute
from fiftyone_ecif.core import Pairs
from fiftyone_ecif.dataset.checks import check_collection, check_run_key, is_classification_field
from fiftyone_ecif.dataset.compute.chosen_scope import attributed_scope, check_scope
from fiftyone_ecif.dataset.fields import TRUSTED_TAG
from fiftyone_ecif.dataset.pairs import EmbeddingSource, PairSource, TowerSource, load_run_model
from fiftyone_ecif.dataset.progress import as_progress
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION, SUSPECTED
from fiftyone_ecif.dataset.repair.suggest import suggestion_labels
from fiftyone_ecif.dataset.results import InfluenceResults, load_results
from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.dataset.run.store import score_columns, write_run
from fiftyone_ecif.detect import CrossFit, Misalignment, threshold_for
from fiftyone_ecif.detect.labelled_pairs import LabelledPairs
from fiftyone_ecif.detect.pipeline import find_misaligned, suggest_texts
from fiftyone_ecif.engine import check_engine, engine_workers
from fiftyone_ecif.features import changed_since
from fiftyone_ecif.models import ContrastiveModel, load_model

DEFAULT_MODEL = ("ViT-B-32", "laion2b_s34b_b79k")
DEFAULT_BATCH_SIZE = 256
FEW_PAIRS = 30
"""Pairs up to which everyone is everyone's neighbour."""

MEMORISED = 0.5
"""How much of the order of losses may be owed to learning by heart before the user should know."""


def compute_influence(
    samples: SampleCollection,
    text_field: str | None = None,
    target: SampleCollection | None = None,
    run_key: str = "ecif",
    model: str | ContrastiveModel = DEFAULT_MODEL[0],
    pretrained: str | None = None,
    scope: str = "head",
    removal: str = "exact",
    rounds: int = 4,
    batch_size: int | None = None,
    damping: float | None = None,
    seed: int = 0,
    device: str | None = None,
    engine: str = "local",
    num_workers: int | None = None,
    skip_failures: bool = True,
    overwrite: bool = False,
    progress: bool | Callable[[str, int, int], None] | None = None,
    *,
    templates: Sequence[str] | None = None,
    anchor: float | None = None,
    image_embeddings: str | None = None,
    text_embeddings: str | None = None,
    evidence: bool = False,
) -> InfluenceResults:
    """Score every image-text pair by what removing it would do to a target loss, and by how likely it is misaligned.

    Writes the sample fields of :data:`~fiftyone_ecif.dataset.fields.SCORE_FIELDS` and registers a FiftyOne custom run.
    A run that fails or is interrupted leaves the dataset as it was.

    Args:
        samples: Dataset or view with the training pairs
        text_field: a StringField with captions, or a Classification field whose labels go into ``templates``; may be
            left out with stored embeddings
        target: Dataset or view of trusted pairs whose mean contrastive loss is the target; None cross-fits the pairs:
            each half is scored against the loss of the other half
        run_key: name of the run, and prefix of its fields
        model: open_clip's name of a model, or a loaded model (``fiftyone_ecif.models.wrap_model``)
        pretrained: open_clip's tag of its weights, or the path of a checkpoint
        scope: the parameters that are thought to change: "head" for the last projections and the logit scale, "lora"
            for low-rank adapters on the towers, "full" for all, or a regular expression of parameter names; values and
            self-influence follow it, misalignment is the head's
        removal: "exact" deletes a pair's negative role, "first_order" follows its derivative
        rounds: random partitions into batches that the scores are averaged over
        batch_size: pairs per batch of the attributed loss; None for 256
        damping: added to the curvature on top of the anchor; None for none
        seed: of everything random
        device: "cpu", "cuda", "cuda:1"; None for a GPU where there is one
        engine: where the towers, the curvature and the scores are computed: "local" for this process, "ray" for the
            workers of a Ray cluster, which may have GPUs that this machine has not (docs/cluster.md)
        num_workers: "local": processes that decode images, None to choose; "ray": workers, None for all that are free
        skip_failures: whether an unusable pair is left out and its reason kept, or raises
        overwrite: whether to replace a run of the same key, once the new one is complete
        progress: True, False, None for FiftyOne's setting, or a function of (step, done, total), which may raise to
            cancel
        templates: with ``{}`` for the label, when ``text_field`` is a Classification field
        anchor: δ, the pull towards the given weights; None to choose by the curvature
        image_embeddings: field with image embeddings to use in place of a model
        text_embeddings: field with text embeddings, likewise
        evidence: whether to write the kinds of evidence that misalignment stands on, too
            (:data:`~fiftyone_ecif.dataset.fields.EVIDENCE_FIELDS`)

    Returns:
        :class:`~fiftyone_ecif.dataset.results.InfluenceResults`

    Raises:
        ValueError: for anything that cannot work, before anything is computed where it can be known
    """
    check_collection(samples)
    if target is not None:
        check_collection(target, "target")
    check_run_key(samples, run_key, overwrite)
    check_engine(engine)
    if (image_embeddings is None) != (text_embeddings is None):
        raise ValueError("Stored embeddings come in two fields: pass image_embeddings and text_embeddings together.")
    if text_field is None and image_embeddings is None:
        raise ValueError("Pass text_field: the field that holds the captions or labels.")
    settings = Settings(removal, rounds, batch_size or DEFAULT_BATCH_SIZE, anchor, damping or 0.0, seed)
    worker_device, device = device, "cpu" if engine == "ray" else check_device(device)
    if isinstance(model, str) and pretrained is None and model == DEFAULT_MODEL[0]:
        pretrained = DEFAULT_MODEL[1]

    report = as_progress(progress)
    started, began = time.perf_counter(), time.time()
    timings: dict[str, float] = {}
    written = _texts(samples, text_field)
    with engine_workers(engine, num_workers, worker_device) as workers:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            if image_embeddings is not None and text_embeddings is not None:
                source: PairSource = EmbeddingSource(image_embeddings, text_embeddings)
            else:
                loaded = model if isinstance(model, ContrastiveModel) else load_model(model, pretrained, device)
                source = TowerSource(
                    loaded, str(text_field), templates, num_workers if engine == "local" else None, report, workers
                )
            check_scope(source, scope)
            pairs = source.pairs(samples, "Embed", skip_failures)
            target_pairs = None if target is None else source.pairs(target, "Embed target", skip_failures)
            _check_overlap(pairs, target_pairs)
            views = source.views(pairs, samples)
            attributed = attributed_scope(
                source, scope, samples, pairs, target, target_pairs, settings.batch_size, seed, report
            )
        timings["embed"] = time.perf_counter() - started
        head = source.head(pairs)
        scored = attributed or Attributed.of_head(head, pairs, target_pairs)
        outcome = compute(scored, source.loss, settings, device, report, workers)
        timings.update(outcome.timings)

    start = time.perf_counter()
    marked = set(samples.match_tags(TRUSTED_TAG).values("id"))
    trusted = torch.tensor([id in marked for id in pairs.ids])
    texts = None if written is None else [written[id] for id in pairs.ids]
    judged: Pairs = pairs
    judged_views: Pairs | None = views
    if texts is not None and is_classification_field(samples, str(text_field)):
        judged = LabelledPairs(pairs, texts)
        judged_views = None if views is None else LabelledPairs(views, texts)
    found, judges = find_misaligned(judged, judged_views, head, source.loss, settings, device, report, trusted)
    suggestions = {}
    if texts is not None:
        suspected = np.flatnonzero(found.probability >= SUSPECTED)
        suggested = suggest_texts(
            judged_views or judged, judges.heads, judges.fold, found.probability, texts, suspected
        )
        suggestions = suggestion_labels(suggested, pairs.ids, texts)
    timings["misalignment"] = time.perf_counter() - start

    notes = [str(item.message) for item in caught] + _notes(pairs, outcome, found, judges, settings, texts)
    if isinstance(source, TowerSource) and (changed := changed_since(_filepaths(samples, pairs.ids), began)):
        notes.append(
            f"{changed} images were changed while the run was computed, and scored as they were when they were read. "
            "Compute it again: only they are embedded anew."
        )
    for note in notes:
        warnings.warn(note, stacklevel=2)
    config = EcifConfig(
        text_field=text_field,
        templates=list(templates) if templates else None,
        target=None if target is None else f"{len(target_pairs or ())} pairs of {target._dataset.name}",
        model=source.name,
        pretrained=source.pretrained,
        model_fingerprint=source.fingerprint,
        view_fingerprint=None if views is None else source.view_fingerprint,
        image_embeddings=image_embeddings,
        text_embeddings=text_embeddings,
        scope=scope,
        loss=source.loss,
        engine=engine,
        device=device,
        evidence=evidence,
        **asdict(settings),
        versions=_versions(),
    )
    start = time.perf_counter()
    report("Write", 0, 1)
    columns = score_columns(outcome, found, pairs.ids, suggestions, evidence)
    timings["total"] = time.perf_counter() - started
    stored = dict(
        health=_health(pairs, target_pairs, outcome, found, judges),
        timings=timings,
        warnings=notes,
        skipped=pairs.skipped,
        target_dataset=None if target is None else target._dataset.name,
        target_ids=None if target_pairs is None else list(target_pairs.ids),
    )
    artifacts = dict(
        fitted=torch.stack([scope.vector() for scope in outcome.scopes]),
        halves=torch.stack([head.vector() for head in judges.heads]),
        surprise=judges.surprise,
        solutions=outcome.solutions,
        **({} if attributed is None else {"origin": attributed.scope.vector()}),
        **{f"given.{name}": value for name, value in vars(head).items() if value is not None},
    )
    write_run(samples, run_key, config, columns, stored, artifacts, overwrite)
    report("Write", 1, 1)
    close = getattr(report, "close", None)
    if close:
        close()
    return load_results(samples._dataset, run_key)


def refresh_run(
    dataset: SampleCollection, run_key: str = "ecif", progress: bool | Callable | None = None
) -> InfluenceResults:
    """Compute a run again as its samples are now, as it was asked for; only what changed is embedded.

    Deleted samples are left out, and the run's kept traces are forgotten: they speak of what was.

    Args:
        dataset: a Dataset or view
        run_key: the run's key
        progress: as in :func:`compute_influence`

    Returns:
        the run that replaces it

    Raises:
        ValueError: if there is no such run, or its model's weights or its target's dataset are gone
    """
    results = load_results(dataset, run_key)
    config = results.config
    again = (
        "text_field", "scope", "removal", "rounds", "batch_size", "damping", "seed", "device", "engine", "templates",
        "anchor", "image_embeddings", "text_embeddings", "evidence",
    )  # fmt: skip
    return compute_influence(
        results.samples,
        target=results.target_samples,
        run_key=run_key,
        model=DEFAULT_MODEL[0] if config.model is None else load_run_model(config),
        overwrite=True,
        progress=progress,
        **{name: getattr(config, name) for name in again},
    )


def check_device(device: str | None) -> str:
    """The device to compute on; raises a ValueError if it is asked for and not there."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is not one that torch knows: try 'cpu' or 'cuda'.") from error
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch sees no CUDA device here: use device='cpu'.")
    return device


def _check_overlap(pairs, target_pairs) -> None:
    if target_pairs is not None and (shared := set(pairs.ids) & set(target_pairs.ids)):
        raise ValueError(
            f"{len(shared)} samples are both scored and in the target. A pair cannot be judged by its own loss: "
            "take them out of one of the two."
        )


def _texts(samples: SampleCollection, text_field: str | None) -> dict[str, str] | None:
    """Captions or labels by sample, before the run begins: meanwhile samples may be deleted or leave the view.

    None where there is no text field.
    """
    if text_field is None:
        return None
    path = f"{text_field}.label" if is_classification_field(samples, text_field) else text_field
    return dict(zip(*samples.values(["id", path]), strict=True))


def _filepaths(samples: SampleCollection, ids: list[str]) -> list[str]:
    """Of the samples that are still there."""
    by_id = dict(zip(*samples.values(["id", "filepath"]), strict=True))
    return [by_id[id] for id in ids if id in by_id]


def _health(pairs, target_pairs, outcome: InfluenceOutcome, found: Misalignment, judges: CrossFit) -> dict:
    """Whether the numbers can be trusted, in numbers."""
    reports = outcome.reports
    return dict(
        pairs=len(pairs),
        skipped=len(pairs.skipped),
        skip_reasons=dict(Counter(pairs.skipped.values())),
        truncated_captions=pairs.truncated,
        target_pairs=None if target_pairs is None else len(target_pairs),
        target_loss=float(np.mean([report.target_loss for report in reports])),
        cg_relative_residual=max(report.solver_relative_residual for report in reports),
        solver_iterations=sum(report.solver_iterations for report in reports),
        fit_relative_gradient=max(report.fit_relative_gradient for report in reports),
        anchor=[report.anchor for report in reports],
        ranking_stability=min(report.ranking_stability for report in reports),
        noise_rate=found.noise_rate,
        suggested_threshold=threshold_for(found.probability, SUGGESTED_PRECISION),
        memorised=judges.memorised,
    )


def _notes(
    pairs, outcome: InfluenceOutcome, found: Misalignment, judges: CrossFit, settings: Settings, texts
) -> list[str]:
    """What the user should know about this run, in plain words."""
    notes = list(outcome.warnings)
    if pairs.skipped:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in Counter(pairs.skipped.values()).most_common(5))
        notes.append(f"{len(pairs.skipped)} pairs were skipped and have no scores: {reasons}.")
    if pairs.truncated:
        notes.append(f"{pairs.truncated} captions are longer than the model's context and were cut.")
    if found.probability.min() == found.probability.max():
        notes.append(
            f"Misalignment is {found.probability[0]:g} for every pair, which says nothing: all images or all captions "
            "are alike, or there are too few pairs to compare."
        )
    elif len(pairs) <= FEW_PAIRS:
        notes.append(f"Only {len(pairs)} pairs: misalignment of so few is an order at best, and no probability.")
    elif threshold_for(found.probability, SUGGESTED_PRECISION) is None:
        notes.append(
            f"No threshold is expected to single out pairs of which {SUGGESTED_PRECISION:.0%} are wrong: "
            "look through the most suspicious ones."
        )
    if judges.memorised > MEMORISED:
        notes.append(
            "The model has learnt many of these pairs by heart: misalignment rests on mild changes of the images and "
            "on neighbours. Read it as an order rather than as a probability."
        )
    if len(pairs) < settings.batch_size:
        notes.append(f"There are fewer pairs ({len(pairs)}) than a batch ({settings.batch_size}): all share one batch.")
    if texts is not None:
        repeats = 1.0 - len(set(texts)) / len(texts)
        if repeats > 0.1:
            notes.append(
                f"{repeats:.0%} of the captions repeat another one. In a batch they count as negatives of each other, "
                "as they do in training with this loss."
            )
    return notes


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("fiftyone-ecif", "fiftyone", "torch", "open_clip_torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
