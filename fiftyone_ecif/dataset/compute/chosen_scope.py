"""The scope that a run attributes to: the head, or parameters inside the towers."""

from __future__ import annotations

from fiftyone_ecif.attribution import Attributed
from fiftyone_ecif.core import Progress
from fiftyone_ecif.dataset.pairs import PairSource, TowerSource
from fiftyone_ecif.dataset.rows import Rows
from fiftyone_ecif.features import RawPairs
from fiftyone_ecif.models import ContrastiveModel, lora_scope, parameter_scope
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
    model: ContrastiveModel,
    scope: str,
    rows: Rows,
    target_rows: Rows | None,
    batch_size: int,
    seed: int,
    report: Progress,
    training_steps: int | None = None,
) -> Attributed:
    """What a run attributes to inside the towers, with the images and tokens that it takes.

    Args:
        model: whose towers
        scope: "lora", "full" or a regular expression of parameter names, as :func:`check_scope` passes it
        rows: of the scored pairs, all of them usable
        target_rows: of the target pairs, likewise; None to cross-fit
        batch_size: of the loss, for adapters that are trained
        seed: of fresh adapters
        report: called with the work done
        training_steps: of fresh adapters; 0 where a run's own values replace theirs, None for as many as usual

    Returns:
        an :class:`~fiftyone_ecif.attribution.Attributed`
    """
    micro_batch = MICRO_BATCH.get(model.device.type)
    raw = RawPairs(model, rows.pair_rows())
    raw_target = None if target_rows is None else RawPairs(model, target_rows.pair_rows())
    if scope == "lora":
        steps = ADAPTER_STEPS if training_steps is None else training_steps
        chosen = lora_scope(
            model, raw, training_steps=steps, batch_size=batch_size, seed=seed, micro_batch=micro_batch, progress=report
        )
    else:
        chosen = parameter_scope(model, scope, micro_batch)
    return Attributed(chosen, raw, raw_target)
