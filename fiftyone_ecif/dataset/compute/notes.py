"""Whether a run's numbers can be trusted: its health in numbers, and what the user should know in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import torch

from fiftyone_ecif.attribution import InfluenceOutcome
from fiftyone_ecif.dataset.repair.review import SUGGESTED_PRECISION
from fiftyone_ecif.detect import CrossFit, Misalignment, threshold_for
from fiftyone_ecif.features import ArrayPairs, StoredPairs, changed_since

FEW_PAIRS = 30
"""Pairs up to which everyone is everyone's neighbour."""

MEMORISED = 0.5
"""How much of the order of losses may be owed to memorised pairs before the user should know."""

UNKNOWN = 0.2
"""Width of the interval of the noise rate from which on the user should know."""

REPEATED = 0.1
"""Share of captions, or of images, that may repeat another one before the user should know."""

MISSING_WORDS = ("nan", "null", "none")
"""What programs write in the place of a text that is missing."""


def health_of(
    pairs: StoredPairs | ArrayPairs,
    target_pairs: StoredPairs | ArrayPairs | None,
    outcome: InfluenceOutcome,
    found: Misalignment,
    cross_fit: CrossFit,
    trusted: dict[str, int],
) -> dict[str, Any]:
    """The run's health, as its record keeps it; ``trusted`` is the number of trusted pairs by the tag that says so."""
    reports = outcome.reports
    factors = [report.self_influence_factor for report in reports if report.self_influence_factor is not None]
    return dict(
        pairs=len(pairs),
        skipped=len(pairs.skipped),
        skip_reasons=dict(Counter(pairs.skipped.values())),
        truncated_captions=pairs.marked("truncated"),
        oriented_images=pairs.marked("oriented"),
        images_with_damaged_metadata=pairs.marked("damaged_metadata"),
        target_pairs=None if target_pairs is None else len(target_pairs),
        target_loss=float(np.mean([report.target_loss for report in reports])),
        cg_relative_residual=max(report.solver_relative_residual for report in reports),
        solver_iterations=sum(report.solver_iterations for report in reports),
        fit_relative_gradient=max(report.fit_relative_gradient for report in reports),
        anchor=[report.anchor for report in reports],
        fits=len(reports),
        folds=outcome.folds,
        fit_rounds=outcome.fit_rounds,
        ranking_stability=outcome.ranking_stability,
        self_influence_factor=float(np.median(factors)) if factors else None,
        noise_rate=found.noise_rate,
        noise_interval=list(found.noise_interval),
        suggested_threshold=threshold_for(found.probability, SUGGESTED_PRECISION),
        memorised=cross_fit.memorised,
        trusted=trusted,
    )


def notes_on_trust(trusted: int, tag: str) -> list[str]:
    """What the user should know about the pairs that were taken as right.

    Args:
        trusted: how many of the scored pairs
        tag: that says so
    """
    if not trusted:
        return []
    return [
        f"{trusted} of the pairs carry the sample tag {tag!r} and were taken as right. If the tag means something else "
        "to you, choose another with ecif.set_tags(dataset, trusted=...) and compute the run again."
    ]


def notes_on_changes(changed: int, deleted: int, text_field: str | None, there: bool, key: str) -> list[str]:
    """What the user should know about edits while the run was computed.

    Args:
        changed: scored pairs with another text now
        deleted: scored pairs that are gone
        text_field: that the texts stand in
        there: whether the dataset still has that field
        key: of the run
    """
    notes = []
    if text_field is not None and not there:
        notes.append(
            f"The field {text_field!r} was renamed or deleted while the run was computed: the texts were scored as "
            "they were when it began. If it has another name now, tell the run: "
            f"ecif.load_results(dataset, {key!r}).change_text_field(new_name)."
        )
    if changed:
        notes.append(
            f"{changed} texts in {text_field!r} were changed while the run was computed, and scored as they were when "
            f"it began. ecif.refresh_run(dataset, {key!r}) scores them as they are now."
        )
    if deleted:
        notes.append(
            f"{deleted} samples were deleted while the run was computed: the others were scored as though they were "
            f"still there. ecif.refresh_run(dataset, {key!r}) leaves them out."
        )
    return notes


def notes_on_pairs(pairs: StoredPairs | ArrayPairs, texts: Sequence[str | None] | None, batch_size: int) -> list[str]:
    """What the user should know about the pairs."""
    notes = []
    if pairs.skipped:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in Counter(pairs.skipped.values()).most_common(5))
        notes.append(f"{len(pairs.skipped)} pairs were skipped and have no scores: {reasons}.")
    if truncated := pairs.marked("truncated"):
        notes.append(f"{truncated} captions are longer than the model's context and were cut.")
    if damaged := pairs.marked("damaged_metadata"):
        notes.append(
            f"{damaged} image files have damaged metadata (EXIF data, TIFF tags), which was ignored: their pixels were "
            "read as they are."
        )
    if len(pairs) < batch_size:
        notes.append(f"There are fewer pairs ({len(pairs)}) than a batch ({batch_size}): all share one batch.")
    missing = Counter(word for text in texts or () if (word := (text or "").strip().lower()) in MISSING_WORDS)
    if missing:
        words = " and ".join(f"“{word}” ({count} ×)" for word, count in missing.most_common())
        notes.append(
            f"Some captions are nothing but {words}, which programs write for a missing text. They were scored as they "
            "are: empty those that are missing, and they will be skipped."
        )
    repeated = {"captions": 0.0 if texts is None else 1.0 - len(set(texts)) / len(texts), "images": _repeated(pairs)}
    if said := [f"{share:.0%} of the {what}" for what, share in repeated.items() if share > REPEATED]:
        notes.append(
            f"{' and '.join(said)} repeat another one. In a batch they count as negatives of each other, "
            "as they do in training with this loss."
        )
    return notes


def _repeated(pairs: StoredPairs | ArrayPairs) -> float:
    """The share of images that repeat another one: whose files, or whose embeddings, hold the same bytes."""
    keys = pairs.image_keys.contiguous().view(torch.int64).flatten()
    return 1.0 - len(keys.unique()) / max(1, len(keys))


def notes_on_target(pairs: StoredPairs | ArrayPairs, target_pairs: StoredPairs | ArrayPairs | None) -> list[str]:
    """What the user should know about the target; the ids of its pairs are others than those of the scored pairs."""
    if target_pairs is None:
        return []
    targeted = {bytes(key) for key in target_pairs.keys.numpy()}
    shared = sum(bytes(key) in targeted for key in pairs.keys.numpy())
    if not shared:
        return []
    same = "the same image and text" if isinstance(pairs, StoredPairs) else "the same embeddings"
    return [
        f"{shared} of the scored pairs are in the target, too, under other sample ids ({same}). They were judged by "
        "their own loss, so that their values are too high: take them out of one of the two."
    ]


def notes_on_orientation(pairs: StoredPairs | ArrayPairs, applied: bool) -> list[str]:
    """What the user should know about images that the App shows turned.

    Args:
        pairs: the scored pairs
        applied: whether the model saw them turned, too
    """
    if applied or not (oriented := pairs.marked("oriented")):
        return []
    return [
        f"{oriented} image files have an EXIF orientation: the App shows them turned or mirrored, and the model "
        "saw them as they are stored, as open_clip does in training. apply_orientation=True turns them for the model."
    ]


def notes_on_misalignment(found: Misalignment, cross_fit: CrossFit) -> list[str]:
    """What the user should know about the misalignment."""
    notes, count = [], len(found.probability)
    if found.probability.min() == found.probability.max():
        notes.append(
            f"Misalignment is {found.probability[0]:g} for every pair, which says nothing: all images or all captions "
            "are alike, or there are too few pairs to compare."
        )
    elif count <= FEW_PAIRS:
        notes.append(f"Only {count} pairs: misalignment of so few is an order at best, and no probability.")
    elif threshold_for(found.probability, SUGGESTED_PRECISION) is None:
        notes.append(
            f"No threshold is expected to single out pairs of which {SUGGESTED_PRECISION:.0%} are wrong: "
            "look through the most suspicious ones."
        )
    low, high = found.noise_interval
    if found.head_knows:
        notes.append(
            "The model seems to have been trained on these very pairs, wrong ones included: about "
            f"{found.noise_rate:.0%} are misaligned as far as can be told, and there may be many more. "
            "Read misalignment as an order rather than as a probability."
        )
    elif high - low > UNKNOWN:
        notes.append(
            f"About {found.noise_rate:.0%} of the pairs are misaligned, and it may be anything from {low:.0%} to "
            f"{high:.0%}: wrong texts that are near the right ones look like right texts that the model does not know."
        )
    if cross_fit.memorised > MEMORISED:
        notes.append(
            "The model has memorised many of these pairs: misalignment rests on mild changes of the images and "
            "on neighbours. Read it as an order rather than as a probability."
        )
    return notes


def notes_on_images(filepaths: Sequence[str], read_at: datetime) -> list[str]:
    """What the user should know about the image files.

    Args:
        filepaths: of the scored pairs
        read_at: when the run began to read them, with its time zone
    """
    changed = changed_since(filepaths, read_at.timestamp())
    if not changed:
        return []
    return [
        f"{changed} images were changed while the run was computed, and scored as they were when they were read. "
        "Compute it again: only they are embedded anew."
    ]
