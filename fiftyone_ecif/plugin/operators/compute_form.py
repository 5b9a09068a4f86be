"""The form of :class:`fiftyone_ecif.plugin.operators.compute.ComputeInfluence`."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset import checks
from fiftyone_ecif.dataset.arguments import Device, Text
from fiftyone_ecif.dataset.compute.request import (
    ASKED,
    DEFAULT_BATCH_SIZE,
    DEFAULT_ROUNDS,
    RunRequest,
)
from fiftyone_ecif.dataset.fields import METHOD
from fiftyone_ecif.dataset.parameters import DEFAULT_MODEL
from fiftyone_ecif.dataset.samples import number_of
from fiftyone_ecif.plugin.forms import (
    counted,
    dropdown,
    duration,
    given,
    invalidate,
    notice,
    one_slice,
    passes,
    refuse,
    target_view,
)
from fiftyone_ecif.plugin.operators.model_form import choose_features, devices, uses_embeddings
from fiftyone_ecif.plugin.operators.request_form import AUTO, choose_advanced, choose_run_key, proposed_run_key
from fiftyone_ecif.plugin.sample_sets import named_set, set_choices, without

FEW_PAIRS = 200

RUN_KEY = "ecif"
"""What a run is called where nobody names it."""

CROSS_FITTED = "cross_fitted"
"""What stands for no target in the form."""

FORM_DEFAULTS = {"batch_size": DEFAULT_BATCH_SIZE, "damping": 0, "device": AUTO}
"""What the form shows where the SDK takes None for it."""


def compute_form(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Ask for everything that can be chosen, guessed from the data, and say below a field why it cannot work."""
    inputs.view_target(ctx, action_description="Compute influence for")
    samples = one_slice(target_view(ctx))
    fields = checks.text_fields(ctx.dataset)
    if _can_start(inputs, samples, fields):
        _choose_captions(ctx, inputs, samples, fields)
        _choose_target(ctx, inputs, samples)
        choose_features(ctx, inputs)
        proposed = proposed_run_key(ctx.dataset, RUN_KEY)
        choose_run_key(ctx, inputs, ASKED["run_key"], proposed, METHOD)
        _choose_advanced(ctx, inputs)
        _estimate(ctx, inputs, samples)


def _can_start(inputs: types.Object, samples: SampleCollection, fields: list[str]) -> bool:
    try:
        checks.check_collection(samples)
    except ValueError as error:
        refuse(inputs, "no_pairs", str(error))
        return False
    if not fields:
        refuse(
            inputs,
            "no_captions",
            "This dataset has no captions.",
            "Add a string field that holds them, or a Classification field.",
        )
    return bool(fields)


def _choose_captions(
    ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, fields: list[str]
) -> None:
    from fiftyone_ecif.attribution.score import LEAST_PAIRS  # brings torch

    field = inputs.enum(
        "text_field",
        fields,
        default=fields[0],
        label=ASKED["text_field"].label,
        description=ASKED["text_field"].hint,
        view=dropdown(fields),
    )
    chosen = given(ctx, "text_field", Text(), fields[0])
    if not passes(field, checks.check_text_field, ctx.dataset, chosen):
        return
    is_label = checks.is_classification_field(ctx.dataset, chosen)
    if is_label:
        _choose_templates(ctx, inputs)
    pairs = samples.count(f"{chosen}.label" if is_label else chosen)
    if pairs == 0:
        refuse(inputs, "all_empty", f"None of these samples has a value in the field {chosen!r}.")
    elif pairs < LEAST_PAIRS:
        reason = f"Only {pairs:,} of these samples {'has' if pairs == 1 else 'have'} a caption."
        refuse(inputs, "few_pairs", reason, f"At least {LEAST_PAIRS} are needed to compare pairs with one another.")
    elif pairs < FEW_PAIRS:
        text = f"Only {pairs:,} of these samples have a caption. The scores of so few pairs are noisy."
        notice(inputs, "few_pairs", types.Notice, text)


def _choose_templates(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    from fiftyone_ecif.dataset.rows import DEFAULT_TEMPLATES

    default = "\n".join(DEFAULT_TEMPLATES)
    field = inputs.str(
        "templates",
        default=default,
        label=ASKED["templates"].label,
        description=ASKED["templates"].hint,
        view=types.TextFieldView(multiline=True, rows=3),
    )
    lines = [line for line in given(ctx, "templates", Text(), default).splitlines() if line.strip()]
    if not lines or not all("{}" in line for line in lines):
        invalidate(field, "Each template needs a {} in the place of the label.")


def _choose_target(ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection) -> None:
    choices = {CROSS_FITTED: "None: cross-fit, the target being the pairs that are believed to be right"}
    choices |= set_choices(ctx.dataset)
    field = inputs.enum(
        "target",
        list(choices),
        default=CROSS_FITTED,
        label=ASKED["target"].label,
        description=ASKED["target"].hint,
        view=dropdown(choices),
    )
    if not passes(field, trusted_pairs, ctx):
        return
    target = trusted_pairs(ctx)
    if target is None or not passes(field, checks.check_collection, target, "The choice"):
        return
    if len(without(samples, target)) == 0:
        invalidate(field, "All samples are in the target, so nothing is left to score.")


def trusted_pairs(ctx: foo.ExecutionContext) -> fo.DatasetView | None:
    """The view that the form names as the target; None to cross-fit; raises a ValueError if it names none."""
    target = given(ctx, "target", Text(), CROSS_FITTED)
    return None if target == CROSS_FITTED else named_set(ctx.dataset, target, "target")


def _choose_advanced(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    sound = choose_advanced(ctx, inputs, RunRequest, ASKED, FORM_DEFAULTS)
    if "engine" in sound:
        from fiftyone_ecif.engine import check_engine  # brings torch

        passes(sound["engine"], check_engine, ctx.params["engine"])


def _estimate(ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection) -> None:
    """Say what embedding and scoring will cost, if that can be known."""
    from fiftyone_ecif.dataset.compute import cost
    from fiftyone_ecif.models.views import VIEWS

    device, pairs = given(ctx, "device", Device(), AUTO), number_of(samples)
    if device not in (AUTO, *devices()) or given(ctx, "engine", ASKED["engine"].kind) == "ray":
        return
    if device == AUTO:
        device = devices()[-1]  # the SDK prefers a GPU too
    words, memory, dims = "", cost.PROCESS_BYTES + pairs * cost.PAIR_BYTES, None
    if uses_embeddings(ctx):
        dims = _stored_dims(ctx, samples)
    else:
        # each image as it is and in all views, each text beside both
        model = given(ctx, "model", Text(), DEFAULT_MODEL[0])
        known = ":" not in model  # what a hub or a folder holds is unknown
        towers = cost.embedding_cost(pairs, model, device, 1 + len(VIEWS), 2) if known else None
        if towers is not None:
            words, dims = f"{duration(towers.seconds)} to embed and ", towers.dims
            memory += towers.model_bytes
    if dims is None:
        return
    batch = given(ctx, "batch_size", ASKED["batch_size"].kind, DEFAULT_BATCH_SIZE)
    rounds = given(ctx, "rounds", ASKED["rounds"].kind, DEFAULT_ROUNDS)
    targeted = ctx.params.get("target", CROSS_FITTED) != CROSS_FITTED
    seconds = cost.scoring_seconds(pairs, dims, batch, rounds, device, targeted)
    memory += 2 * pairs * sum(dims) * cost.FLOAT_BYTES
    on = "this machine's CPU" if device == "cpu" else device
    label = (
        f"About {words}{duration(seconds)} to score {counted(pairs, 'pair')} on {on}; {memory / 1e9:.1f} GB of memory"
    )
    rest = "This is a rough guess: several times more if the head converges slowly, less if pairs were embedded before."
    notice(inputs, "cost", types.Notice, label, rest)


def _stored_dims(ctx: foo.ExecutionContext, samples: SampleCollection) -> tuple[int, int, int] | None:
    """The lengths of stored embeddings: in the joint space, of an image, of a text; None if none are chosen."""
    fields = [given(ctx, name, Text()) for name in ("image_embeddings", "text_embeddings")]
    if not all(fields):
        return None
    for name in fields:
        checks.check_field(samples, name)
    images, texts = (found[0] if found else None for found in samples.limit(1).values(fields))
    return None if images is None or texts is None else (len(images), len(images), len(texts))
