"""The snapshot that a run of preference pairs stands on: what is asked of each sample, and what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.checks import check_collection, check_text_field, score_field
from fiftyone_ecif.dataset.preference.request import PreferenceRequest
from fiftyone_ecif.dataset.run.config import check_run
from fiftyone_ecif.dataset.tags import tags_of
from fiftyone_ecif.dataset.texts import fixes_field, has_fixes, text_path
from fiftyone_ecif.features.reading import UnreadablePair, check_caption, opened
from fiftyone_ecif.preference import content_of, marker_in


@dataclass(frozen=True)
class Material:
    """What is known of a sample.

    Attributes:
        id: the sample's
        path: of its image
        content: of the image's file
        prompt: what is asked
        chosen: the right answer
        replaced: wrong answers that were corrected
    """

    id: str
    path: str
    content: str
    prompt: str
    chosen: str
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """What was read, once.

    Attributes:
        materials: of the samples that can serve
        skipped: reason by sample id
    """

    materials: list[Material]
    skipped: dict[str, str] = field(default_factory=dict)


def read(
    samples: SampleCollection,
    request: PreferenceRequest,
    markers: Sequence[str],
    report: Callable[[int, int], None],
) -> Taken:
    """Read the samples, once.

    Args:
        samples: Dataset or view, by :func:`check_request`
        request: names the fields
        markers: tokens of the models that no text may hold
        report: called with how many are read; may raise to cancel

    Raises:
        ValueError: if no sample can serve
    """
    columns = _columns(samples, request)
    taken, seen = Taken([]), set()
    for done, row in enumerate(zip(*columns.values(), strict=True), start=1):
        told = dict(zip(columns, row, strict=True))
        if told["id"] not in seen:
            seen.add(told["id"])
            try:
                taken.materials.append(_material(told, samples, request, markers))
            except UnreadablePair as fault:
                taken.skipped[told["id"]] = fault.reason
        report(done, len(columns["id"]))
    if not taken.materials:
        reason = next(iter(taken.skipped.values()))
        raise ValueError(f"None of {len(seen)} samples can be used. For example: {reason}.")
    return taken


def check_request(samples: SampleCollection, request: PreferenceRequest) -> None:
    """Raise a ValueError unless the samples, the fields and the run that are named can serve."""
    check_collection(samples)
    for name in filter(None, (request.chosen_field, request.prompt_field)):
        check_text_field(samples, name)
    if request.suspects_run is not None:
        check_run(samples._dataset, request.suspects_run)
    if request.min_confidence is not None:
        _suggestion_field(samples, request)


def _columns(samples: SampleCollection, request: PreferenceRequest) -> dict[str, list[Any]]:
    """What the database holds of each sample."""
    chosen_field = str(request.chosen_field)
    paths = {"id": "id", "path": "filepath", "tags": "tags", "chosen": text_path(samples, chosen_field)}
    if request.prompt_field is not None:
        paths["prompt"] = text_path(samples, request.prompt_field)
    if has_fixes(samples, chosen_field):
        paths["fixes"] = f"{fixes_field(chosen_field)}.before"
    if request.min_confidence is not None:
        suggestion = _suggestion_field(samples, request)
        paths |= {"suggestion": f"{suggestion}.label", "confidence": f"{suggestion}.confidence"}
    values = samples.aggregate([fo.Values(path) for path in paths.values()])
    return dict(zip(paths, values, strict=True))


def _suggestion_field(samples: SampleCollection, request: PreferenceRequest) -> str:
    """The field with the run's suggestions for the chosen texts."""
    run_key = str(request.suspects_run)
    text_field = samples._dataset.get_run_info(run_key).config.text_field
    if text_field != request.chosen_field:
        raise ValueError(
            f"Run {run_key!r} suggests texts of the field {text_field!r}, not of {request.chosen_field!r}: pass that "
            "as chosen_field, or no min_confidence."
        )
    return score_field(samples, run_key, "suggestion")


def _material(
    told: dict[str, Any], samples: SampleCollection, request: PreferenceRequest, markers: Sequence[str]
) -> Material:
    """What is known of one sample; raises an UnreadablePair if it cannot serve."""
    tags, own = tags_of(samples), set(told["tags"] or ())
    chosen, replaced = told["chosen"], list(told.get("fixes") or ())
    confidence = told.get("confidence")
    sure = request.min_confidence is not None and confidence is not None and confidence >= request.min_confidence
    if sure and told["suggestion"] and told["suggestion"] != chosen and tags.trusted not in own:
        chosen, replaced = told["suggestion"], [*replaced, chosen]
    elif wrong := own & {tags.misaligned, tags.rejected, tags.empty}:
        raise UnreadablePair(f"the text is tagged {min(wrong)!r} and was not corrected")
    texts = {}
    for name, value in (("right answer", chosen), ("prompt", told.get("prompt", request.prompt))):
        try:
            texts[name] = check_caption(value)
        except UnreadablePair as fault:
            raise UnreadablePair(fault.reason.replace("caption", name)) from fault
        if marker := marker_in(texts[name], markers):
            raise UnreadablePair(f"the {name} holds {marker}, which models take for a mark")
    wrong_texts = tuple(text for text in replaced if isinstance(text, str))  # other programs may have written others
    with opened(told["path"]):
        content = content_of(told["path"])
    return Material(told["id"], told["path"], content, texts["prompt"], texts["right answer"], wrong_texts)
