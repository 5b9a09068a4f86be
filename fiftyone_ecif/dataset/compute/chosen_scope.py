"""The scope that a run attributes to: the head, or parameters inside the towers."""

from __future__ import annotations

from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.attribution import Attributed
from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.pairs import PairSource, TowerSource, pair_rows
from fiftyone_ecif.features import ArrayPairs, RawPairs, StoredPairs
from fiftyone_ecif.models import lora_scope, parameter_scope
from fiftyone_ecif.models.lora import check_adaptable
from fiftyone_ecif.models.parameter_scope import chosen_parameters

MICRO_BATCH = {"cpu": 32, "cuda": 128}
"""Images or texts in a tower at once with a graph."""

ADAPTER_STEPS = 100
"""Training steps of fresh adapters."""


def check_scope(source: PairSource, scope: str) -> None:
    """Raise unless the source's model has the scope; cheap, before anything is embedded.

    Raises:
        ValueError: if no parameter is meant, or there is no model
        ImportError: if the scope needs peft and it is not installed
    """
    if scope == "head":
        return
    if not isinstance(source, TowerSource):
        raise ValueError(f"scope {scope!r} is inside a model's towers; with stored embeddings only 'head' can be had.")
    if scope == "lora":
        check_adaptable(source.model)
    else:
        chosen_parameters(source.model, scope)


def attributed_scope(
    source: PairSource,
    scope: str,
    samples: SampleCollection,
    pairs: StoredPairs | ArrayPairs,
    target: SampleCollection | None,
    target_pairs: StoredPairs | ArrayPairs | None,
    batch_size: int,
    seed: int,
    report: Progress,
    training_steps: int | None = None,
) -> Attributed | None:
    """What a run attributes to in place of the head; None for the head itself.

    Args:
        source: of the pairs
        scope: "head", "lora", "full" or a regular expression of parameter names, as :func:`check_scope` passes it
        samples: the scored collection
        pairs: the features of its usable pairs
        target: the trusted collection, or None
        target_pairs: the features of its usable pairs
        batch_size: of the loss, for adapters that are trained
        seed: of fresh adapters
        report: called with the work done
        training_steps: of fresh adapters; 0 where a run's own values replace theirs, None for as many as usual

    Returns:
        an :class:`~fiftyone_ecif.engine.Attributed`, or None
    """
    if not isinstance(source, TowerSource) or scope == "head":
        return None
    model = source.model
    micro_batch = MICRO_BATCH.get(model.device.type)
    raw = _raw(source, samples, pairs)
    raw_target = None if target is None or target_pairs is None else _raw(source, target, target_pairs)
    if scope == "lora":
        steps = ADAPTER_STEPS if training_steps is None else training_steps
        chosen = lora_scope(
            model, raw, training_steps=steps, batch_size=batch_size, seed=seed, micro_batch=micro_batch, progress=report
        )
    else:
        chosen = parameter_scope(model, scope, micro_batch)
    return Attributed(chosen, raw, raw_target)


def _raw(source: TowerSource, samples: SampleCollection, pairs: StoredPairs | ArrayPairs) -> RawPairs:
    """Images and tokens of the pairs that have features, in their order."""
    rows = {row.id: row for row in pair_rows(samples, source.text_field, source.templates)}
    return RawPairs(source.model, [rows[id] for id in pairs.ids])
