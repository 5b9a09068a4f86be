"""From samples to preference pairs, in four steps: read, find wrong answers, balance, record."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset.arguments import Samples
from fiftyone_ecif.dataset.checks import check_run_key
from fiftyone_ecif.dataset.compute.influence import Timings
from fiftyone_ecif.dataset.compute.signature import takes
from fiftyone_ecif.dataset.fields import PREFERENCE_METHOD
from fiftyone_ecif.dataset.preference.negatives import Found, Models, find_pairs, models
from fiftyone_ecif.dataset.preference.read import Taken, check_request, read
from fiftyone_ecif.dataset.preference.request import PreferenceRequest
from fiftyone_ecif.dataset.preference.results import PreferenceResults, document, load_preferences
from fiftyone_ecif.dataset.progress import reporting
from fiftyone_ecif.dataset.run.config import PreferenceConfig
from fiftyone_ecif.dataset.run.store import Columns, write_run
from fiftyone_ecif.dataset.run.writing import claimed
from fiftyone_ecif.dataset.samples import those
from fiftyone_ecif.notes import collecting_notes, warn
from fiftyone_ecif.preference import MOST_BIAS, Bias, PreferencePair, balanced, bias_of


@takes(PreferenceRequest, "samples")
def build_preferences(  # noqa: D417 - put in below
    samples: SampleCollection, request: PreferenceRequest
) -> PreferenceResults:
    """Preference pairs for training a model that answers about images: right answers beside wrong ones.

    Writes the sample fields of :data:`~fiftyone_ecif.dataset.fields.PREFERENCE_FIELDS` and registers a FiftyOne custom
    run. docs/preference.md says how. A run that fails or is interrupted leaves the dataset as it was; what a model
    answered is kept on this machine, so that nothing is asked twice.

    Args:
        samples: Dataset or view
        {parameters}

    Returns:
        :class:`~fiftyone_ecif.dataset.preference.results.PreferenceResults`

    Raises:
        ValueError: for anything that cannot work, before anything is computed where it can be known; and if no pair is
            left
    """
    Samples()("samples", samples)
    dataset, timings = samples._dataset, Timings()
    with claimed(dataset, request.run_key), reporting(request.progress) as report:
        check_run_key(dataset, request.run_key, request.overwrite, PREFERENCE_METHOD)
        with timings.of("total"), collecting_notes() as said:
            check_request(samples, request)
            used = models(request, dataset)
            with timings.of("read"):
                taken = read(samples, request, used.markers, lambda done, total: report("Read images", done, total))
            with timings.of("find"):
                found = find_pairs(taken.materials, used, request, report)
        if not found.pairs:
            raise ValueError(f"No pair is left. {_most_common(found)}")
        before = bias_of(_texts(found.pairs))
        kept, notes = _balanced(found.pairs) if request.balance else (found.pairs, [])
        after = bias_of(_texts(kept))
        notes = [*said, *notes, *_notes(taken, found, used, after)]
        for each in notes:
            warn(each)
        record = dict(
            health=_health(taken, found, kept),
            bias=[asdict(each) for each in (before, after)],
            timings=timings.seconds,
            warnings=notes,
            skipped=taken.skipped,
        )
        config = PreferenceConfig(**request.stored(), **used.titles)
        columns = _columns(dataset, kept)
        write_run(samples, request.run_key, config, columns, record, {}, request.overwrite)
    return load_preferences(dataset, request.run_key)


def _texts(pairs: list[PreferencePair]) -> list[tuple[str, str]]:
    return [(each.chosen, each.rejected) for each in pairs]


def _balanced(pairs: list[PreferencePair]) -> tuple[list[PreferencePair], list[str]]:
    """The pairs of balanced lengths, and what the user should know of it."""
    places = balanced(_texts(pairs))
    if not places:
        return pairs, ["Lengths could not be balanced: all chosen texts are longer, or all are shorter."]
    gone = len(pairs) - len(places)
    note = [f"{gone} of {len(pairs)} pairs are left out to balance lengths."] if gone else []
    return [pairs[place] for place in places], note


def _notes(taken: Taken, found: Found, used: Models, bias: Bias) -> list[str]:
    """What the user should know about a run."""
    notes = []
    if taken.skipped:
        reason, _ = Counter(taken.skipped.values()).most_common(1)[0]
        notes.append(f"{len(taken.skipped)} samples are left out, most of them for this reason: {reason}.")
    if found.left_out:
        notes.append(_most_common(found))
    if used.judge is None:
        notes.append("Nothing tells whether the wrong answers need the image: pass a model of Hugging Face, or a clip.")
    if abs(bias.length) > MOST_BIAS:
        longer = "longer" if bias.length > 0 else "shorter"
        notes.append(
            f"Chosen texts are {longer} than rejected ones by {abs(bias.length):.0%} of the mean length, which a model "
            "may learn in place of the image: build the pairs with balance=True, or from other origins."
        )
    return notes


def _most_common(found: Found) -> str:
    if not found.left_out:
        return "No text was ever fixed, and no other wrong answers were asked for."
    (origin, reason), count = found.left_out.most_common(1)[0]
    return f"{found.left_out.total()} wrong answers are left out, for example {count} of {origin!r}: {reason}."


def _health(taken: Taken, found: Found, kept: list[PreferencePair]) -> dict:
    return dict(
        samples=len(taken.materials),
        pairs=len(kept),
        origins=Counter(each.origin for each in kept),
        left_out=[[*what, count] for what, count in found.left_out.most_common()],
        skipped=len(taken.skipped),
        skip_reasons=[[reason, count] for reason, count in Counter(taken.skipped.values()).most_common()],
    )


def _columns(dataset: fo.Dataset, pairs: list[PreferencePair]) -> Columns:
    """The values of the run's fields; samples that were deleted meanwhile have none."""
    of: dict[str, list[PreferencePair]] = {}
    for each in pairs:
        of.setdefault(each.sample_id, []).append(each)
    there = set(those(dataset, list(of)).values("id"))
    if not there & set(of):
        raise ValueError("All samples were deleted while pairs were built: there is nothing to write them to.")
    columns: Columns = {"preferences": {}, "grounding": {}}
    for id, own in of.items():
        if id in there:
            nats = [each.grounding for each in own if each.grounding is not None]
            columns["preferences"][id] = [document(each) for each in own]
            columns["grounding"][id] = sum(nats) / len(nats) if nats else None
    return columns
