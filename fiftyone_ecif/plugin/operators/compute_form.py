"""The form of :class:`fiftyone_ecif.plugin.operators.compute.ComputeInfluence`."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset import checks as validation
from fiftyone_ecif.plugin.forms import dropdown, duration, invalidate, notice, passes, refuse
from fiftyone_ecif.plugin.operators.model_form import choose_features, default_model, devices

FEW_PAIRS = 200
DEFAULT_ROUNDS = 4


def compute_form(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Everything one may choose, guessed from the data, with the reason below whatever cannot work."""
    inputs.view_target(ctx, action_description="Compute influence for")
    samples = ctx.target_view()
    fields = validation.text_fields(ctx.dataset)
    if _can_start(inputs, samples, fields):
        _choose_captions(ctx, inputs, samples, fields)
        _choose_target(ctx, inputs, samples)
        choose_features(ctx, inputs)
        _choose_run_key(ctx, inputs)
        _choose_advanced(ctx, inputs)
        _estimate(ctx, inputs, samples)


def _can_start(inputs: types.Object, samples: SampleCollection, fields: list[str]) -> bool:
    try:
        validation.check_collection(samples)
    except ValueError as error:
        refuse(inputs, "no_pairs", str(error))
        return False
    if not fields:
        refuse(
            inputs,
            "no_captions",
            "This dataset has no captions.",
            "Add a string field with a caption, or a Classification field, to its samples.",
        )
    return bool(fields)


def _choose_captions(
    ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection, fields: list[str]
) -> None:
    field = inputs.enum(
        "text_field",
        fields,
        default=fields[0],
        label="Captions",
        description="The field that holds each image's caption or label",
        view=dropdown(fields),
    )
    chosen = ctx.params.get("text_field", fields[0])
    if not passes(field, validation.check_text_field, ctx.dataset, chosen):
        return
    is_label = validation.is_classification_field(ctx.dataset, chosen)
    if is_label:
        _choose_templates(ctx, inputs)
    pairs = samples.count(f"{chosen}.label" if is_label else chosen)
    if pairs == 0:
        refuse(inputs, "all_empty", f"None of these samples has a value in {chosen!r}.")
    elif pairs < FEW_PAIRS:
        text = f"Only {pairs:,} of these samples have a caption: scores of so few pairs are noisy."
        notice(inputs, "few_pairs", types.Notice, text)


def _choose_templates(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    from fiftyone_ecif.dataset.rows import DEFAULT_TEMPLATES

    default = "\n".join(DEFAULT_TEMPLATES)
    field = inputs.str(
        "templates",
        default=default,
        label="Caption templates",
        description="One per line; {} stands for the label",
        view=types.TextFieldView(multiline=True, rows=3),
    )
    lines = [line for line in ctx.params.get("templates", default).splitlines() if line.strip()]
    if not lines or not all("{}" in line for line in lines):
        invalidate(field, "Each template needs a {} where the label goes.")


def _choose_target(ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection) -> None:
    choices = {"cross_fitted": "None: each half of the pairs is judged by the other"}
    choices |= {f"view:{name}": f"Saved view: {name}" for name in ctx.dataset.list_saved_views()}
    choices |= {f"tag:{tag}": f"Sample tag: {tag}" for tag in ctx.dataset.distinct("tags")}
    field = inputs.enum(
        "target",
        list(choices),
        default="cross_fitted",
        label="Trusted pairs",
        description="Pairs known to be right. Influence is measured on their loss; they get no scores themselves",
        view=dropdown(choices),
    )
    target = trusted_pairs(ctx)
    if target is None or not passes(field, validation.check_collection, target, "The choice"):
        return
    if len(without(samples, target)) == 0:
        invalidate(field, "All samples are trusted: nothing is left to score.")


def trusted_pairs(ctx: foo.ExecutionContext) -> fo.DatasetView | None:
    """The view that the form names as the target; None to cross-fit."""
    kind, _, name = ctx.params.get("target", "cross_fitted").partition(":")
    if kind == "view" and ctx.dataset.has_saved_view(name):
        return ctx.dataset.load_saved_view(name)
    return ctx.dataset.match_tags(name) if kind == "tag" else None


def without(samples: SampleCollection, target: SampleCollection) -> fo.DatasetView:
    """The samples that are not in the target: a pair cannot be judged by its own loss."""
    return samples.exclude(target.values("id"))


def proposed_run_key(dataset: fo.Dataset) -> str:
    """The first of "ecif", "ecif_2", ... that is free."""
    return next(key for key in ("ecif", *(f"ecif_{n}" for n in range(2, 1000))) if _is_free(dataset, key))


def _is_free(dataset: fo.Dataset, run_key: str) -> bool:
    try:
        validation.check_run_key(dataset, run_key)
    except ValueError:
        return False
    return True


def _choose_run_key(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    proposed = proposed_run_key(ctx.dataset)
    field = inputs.str(
        "run_key",
        default=proposed,
        label="Run key",
        description="The name of this run, which its fields begin with",
    )
    run_key, overwrite = ctx.params.get("run_key", proposed), bool(ctx.params.get("overwrite"))
    if ctx.dataset.has_run(run_key):
        inputs.bool(
            "overwrite",
            default=False,
            label=f"Replace the run {run_key!r} and its fields",
            view=types.CheckboxView(),
        )
    passes(field, validation.check_run_key, ctx.dataset, run_key, overwrite)


def _choose_advanced(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    inputs.bool("advanced", default=False, label="Advanced settings", view=types.SwitchView())
    if not ctx.params.get("advanced"):
        return
    removals = {"exact": "Exact", "first_order": "First order: faster, less faithful"}
    inputs.enum(
        "removal",
        list(removals),
        default="exact",
        label="Removal",
        description="How a pair leaves its batch",
        view=dropdown(removals, space=6),
    )
    from fiftyone_ecif.dataset.compute.influence import check_engine
    from fiftyone_ecif.dataset.compute.request import DEFAULT_BATCH_SIZE

    half = types.FieldView(space=6)
    inputs.int(
        "rounds", default=DEFAULT_ROUNDS, min=1, label="Rounds", description="Random partitions into batches", view=half
    )
    inputs.int(
        "batch_size", default=DEFAULT_BATCH_SIZE, min=2, label="Batch size", description="Pairs per batch", view=half
    )
    inputs.float("damping", default=0, min=0, label="Damping", description="Added to the curvature", view=half)
    inputs.int("seed", default=0, min=0, label="Seed", description="Of everything random", view=half)
    choices = ["auto", *devices()]
    inputs.enum("device", choices, default="auto", label="Device", view=dropdown(choices, space=6))
    engines = {"local": "This machine", "ray": "A Ray cluster"}
    field = inputs.enum(
        "engine",
        list(engines),
        default="local",
        label="Where to compute",
        description="The cluster that RAY_ADDRESS names, or the one that runs here",
        view=dropdown(engines, space=6),
    )
    passes(field, check_engine, ctx.params.get("engine") or "local")
    inputs.bool(
        "evidence",
        default=False,
        label="Write what each kind of evidence for misalignment says",
        view=types.CheckboxView(),
    )


def _estimate(ctx: foo.ExecutionContext, inputs: types.Object, samples: SampleCollection) -> None:
    """Say what embedding and scoring will cost, where that is known."""
    from fiftyone_ecif.dataset.compute import cost
    from fiftyone_ecif.dataset.compute.request import DEFAULT_BATCH_SIZE
    from fiftyone_ecif.models.views import VIEWS

    params, device, pairs = ctx.params, ctx.params.get("device", "auto"), len(samples)
    if device not in ("auto", *devices()) or params.get("engine") == "ray":
        return
    if device == "auto":
        device = devices()[-1]  # the SDK prefers a GPU too
    words, memory, dims = "", cost.PROCESS_BYTES + pairs * cost.PAIR_BYTES, None
    if params.get("features") == "embeddings":
        dims = _stored_dims(samples, params)
    else:
        # each image once as it is, and in all views; each text beside either
        model = params.get("model") or default_model()[0]
        known = ":" not in model  # what a hub or a folder holds is not
        towers = cost.embedding_cost(pairs, model, device, 1 + len(VIEWS), 2) if known else None
        if towers is not None:
            words, dims = f"{duration(towers.seconds)} to embed and ", towers.dims
            memory += towers.model_bytes
    if dims is None:
        return
    batch, rounds = params.get("batch_size") or DEFAULT_BATCH_SIZE, params.get("rounds") or DEFAULT_ROUNDS
    seconds = cost.scoring_seconds(pairs, dims, batch, rounds, device)
    memory += 2 * pairs * sum(dims) * cost.FLOAT_BYTES
    on = "this machine's CPU" if device == "cpu" else device
    label = f"About {words}{duration(seconds)} to score {pairs:,} pairs on {on}; {memory / 1e9:.1f} GB of memory"
    rest = "A rough guess: several times more if the head is slow to come to rest, less if pairs were embedded before."
    notice(inputs, "cost", types.Notice, label, rest)


def _stored_dims(samples: SampleCollection, params: dict[str, Any]) -> tuple[int, int, int] | None:
    """How many numbers stored embeddings have: in the joint space, of an image, of a text; None: none are chosen."""
    fields = [params.get(name) for name in ("image_embeddings", "text_embeddings")]
    if not all(fields):
        return None
    images, texts = (found[0] if found else None for found in samples.limit(1).values(fields))
    return None if images is None or texts is None else (len(images), len(images), len(texts))
