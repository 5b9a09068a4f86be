"""The last step of a run: its fields, its record and its tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import InfluenceOutcome
from fiftyone_ecif.core import Head
from fiftyone_ecif.dataset.compute.detect import Judged
from fiftyone_ecif.dataset.compute.embed import Embedded, Taken
from fiftyone_ecif.dataset.compute.notes import (
    health_of,
    notes_on_changes,
    notes_on_images,
    notes_on_misalignment,
    notes_on_orientation,
    notes_on_pairs,
    notes_on_target,
    notes_on_trust,
)
from fiftyone_ecif.dataset.compute.request import RunRequest
from fiftyone_ecif.dataset.pairs import TowerSource
from fiftyone_ecif.dataset.rows import changed_since
from fiftyone_ecif.dataset.run.config import EcifConfig
from fiftyone_ecif.dataset.run.run import TARGET_PREFIX
from fiftyone_ecif.dataset.run.snapshot import Snapshot
from fiftyone_ecif.dataset.run.store import score_columns, write_run


@dataclass(frozen=True)
class Computed:
    """Everything that a run has found out, before it is written.

    Attributes:
        taken: the snapshot
        embedded: the features
        outcome: the values
        judged: the misalignment
    """

    taken: Taken
    embedded: Embedded
    outcome: InfluenceOutcome
    judged: Judged

    @property
    def trusted(self) -> int:
        """The number of scored pairs that were taken as right."""
        return sum(self.embedded.rows.trusted)

    def notes(self, samples: SampleCollection, request: RunRequest) -> list[str]:
        """What the user should know about the run, in plain words.

        Raises:
            ValueError: if no sample is left that could get a score
        """
        embedded, judged = self.embedded, self.judged
        notes = [*self.outcome.warnings]
        notes += notes_on_pairs(embedded.pairs, embedded.rows.texts, request.settings().batch_size)
        notes += notes_on_target(embedded.pairs, embedded.target_pairs)
        notes += notes_on_orientation(embedded.pairs, request.apply_orientation)
        notes += notes_on_trust(self.trusted, self.taken.trusted_tag)
        notes += notes_on_misalignment(judged.found, judged.cross_fit)
        if isinstance(embedded.source, TowerSource):
            notes += notes_on_images(embedded.rows.filepaths, self.taken.at)
        changed, deleted = changed_since(embedded.rows, samples, request.text_field)
        if deleted == len(embedded.rows):
            raise ValueError("All samples were deleted while the run was computed: there is nothing to write it to.")
        there = request.text_field is None or samples._dataset.has_sample_field(request.text_field)
        notes += notes_on_changes(changed, deleted, request.text_field, there, request.run_key)
        return notes


def record(
    samples: SampleCollection,
    request: RunRequest,
    device: str,
    computed: Computed,
    notes: list[str],
    timings: dict[str, float],
) -> None:
    """Write the run's fields, its record and its tensors, or nothing at all."""
    embedded, judged, target = computed.embedded, computed.judged, request.target
    pairs, target_pairs = embedded.pairs, embedded.target_pairs
    trusted = {computed.taken.trusted_tag: computed.trusted}
    kept = dict(
        health=health_of(pairs, target_pairs, computed.outcome, judged.found, judged.cross_fit, trusted),
        timings=timings,
        warnings=notes,
        skipped=pairs.skipped,
        whole=not samples.view()._serialize(),
        labelled=embedded.rows.labelled,
        target_dataset=None if target is None else target._dataset.name,
        target_dataset_id=None if target is None else str(target._dataset._doc.id),
        target_is_own=target is not None and target._dataset is samples._dataset,
        target_ids=None if target_pairs is None else list(target_pairs.ids),
    )
    suggestions = judged.suggestions, request.evidence, judged.vagueness, judged.candidates
    columns = score_columns(computed.outcome, judged.found, pairs.ids, *suggestions)
    config, tensors = config_of(request, device, embedded), tensors_of(computed)
    write_run(samples, request.run_key, config, columns, kept, tensors, request.overwrite)


def config_of(request: RunRequest, device: str, embedded: Embedded) -> EcifConfig:
    """What the run was asked for, what it ran on, and the versions it ran with."""
    source, target = embedded.source, request.target
    named = None if target is None else f"{len(embedded.target_pairs or ())} pairs of {target._dataset.name}"
    return EcifConfig(
        **request.stored() | asdict(request.settings()),
        target=named,
        model=source.name,
        pretrained=source.pretrained,
        load_arguments=source.load_arguments,
        model_fingerprint=source.fingerprint,
        view_fingerprint=None if embedded.views is None else source.view_fingerprint,
        loss=source.loss,
        computed_on=device,
        versions=_versions(),
    )


def tensors_of(computed: Computed) -> dict[str, torch.Tensor]:
    """What the run keeps on disk: what it has read, what was fitted, and the scores that later questions need."""
    embedded, outcome, judged = computed.embedded, computed.outcome, computed.judged
    scope, cross_fit = embedded.attributed.scope, judged.cross_fit
    kept = Snapshot.of(embedded.rows, embedded.pairs).tensors()
    if embedded.target_pairs is not None and embedded.target_rows is not None:
        kept |= Snapshot.of(embedded.target_rows, embedded.target_pairs).tensors(TARGET_PREFIX)
    if not isinstance(scope, Head):
        kept["origin"] = scope.vector()
    kept |= {f"given.{name}": value for name, value in vars(embedded.head).items() if value is not None}
    if embedded.target_pairs is None:
        kept["believed"] = judged.believed
    return kept | dict(
        fitted=torch.stack([fitted.vector() for fitted in outcome.scopes]),
        halves=torch.stack([head.vector() for head in cross_fit.heads]),
        surprise=cross_fit.surprise,
        solutions=outcome.solutions,
        self_influence=outcome.scores.self_influence,
        misalignment=torch.from_numpy(judged.found.probability),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("fiftyone-ecif", "fiftyone", "torch", "open_clip_torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
