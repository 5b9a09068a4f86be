"""The form of :class:`fiftyone_ecif.plugin.operators.shift.ComputeShift`."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from fiftyone_ecif.dataset import checks
from fiftyone_ecif.dataset.arguments import Flag, Text, shown
from fiftyone_ecif.dataset.fields import SHIFT_METHOD
from fiftyone_ecif.dataset.samples import number_of
from fiftyone_ecif.dataset.shift.request import ASKED, PUBLISHED, ROLES, ShiftRequest
from fiftyone_ecif.plugin.forms import (
    NONE,
    dropdown,
    given,
    named,
    notice,
    one_slice,
    or_none,
    passes,
    refuse,
    target_view,
)
from fiftyone_ecif.plugin.operators.model_form import (
    choose_model,
    choose_source,
    embedding_fields,
    named_model,
    uses_embeddings,
)
from fiftyone_ecif.plugin.operators.request_form import AUTO, choose_advanced, choose_run_key, proposed_run_key
from fiftyone_ecif.plugin.sample_sets import named_set, naming_fields, set_choices, without

RUN_KEY = "shift"
"""What a run is called where nobody names it."""

REST, VIEWS, VALUES = "rest", "views", "values:"
"""What stands for all other samples, for each other saved view, and, before a field's name, for each of its values."""

MOST_SCENARIOS = 50
"""Values of a field that are compared one by one, at most."""

TEXT_FIELDS = ("query_field", "response_field", "reference_field")


def shift_form(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    """Ask for the sets and what is compared of them, and say below a field why it cannot work."""
    inputs.view_target(ctx, action_description="Take the other samples from")
    sets = set_choices(ctx.dataset)
    if not sets:
        refuse(
            inputs,
            "no_sets",
            "This dataset has neither saved views nor sample tags, so nothing can be named as the reference.",
            "Save a view of the samples that the model was trained on, or tag them.",
        )
        return
    _choose_sets(ctx, inputs, sets)
    _choose_roles(ctx, inputs)
    if embedding_fields(ctx.dataset):
        choose_source(inputs)
    if uses_embeddings(ctx):
        _choose_embeddings(ctx, inputs)
    else:
        choose_model(ctx, inputs, (PUBLISHED,))
        asked = ASKED["text_encoder"]
        inputs.str("text_encoder", label=asked.label, description=asked.hint)
    proposed = proposed_run_key(ctx.dataset, RUN_KEY)
    choose_run_key(ctx, inputs, ASKED["run_key"], proposed, SHIFT_METHOD)
    choose_advanced(ctx, inputs, ShiftRequest, ASKED, {"device": AUTO})
    try:
        ShiftRequest(**sdk_arguments(ctx))
    except ValueError as error:
        refuse(inputs, "cannot_be_asked", str(error))


def _choose_sets(ctx: foo.ExecutionContext, inputs: types.Object, sets: dict[str, str]) -> None:
    first = next(iter(sets))
    field = inputs.enum(
        "reference",
        list(sets),
        default=first,
        label="Reference",
        description="What the model was trained on, or serves well",
        view=dropdown(sets),
    )
    choices = {REST: "All other samples", VIEWS: "Each other saved view, one by one"}
    choices |= {f"{VALUES}{name}": f"Each value of {name}, one by one" for name in naming_fields(ctx.dataset)}
    others = inputs.enum(
        "others",
        [*choices, *sets],
        default=REST,
        label="Compare with",
        description="Each set is a scenario, and scenarios are ranked by their risk",
        view=dropdown(choices | sets),
    )
    if passes(field, reference, ctx) and passes(others, scenarios, ctx):
        counts = {name: number_of(view) for name, view in scenarios(ctx).items()}
        some = ", ".join(f"{name} ({count:,})" for name, count in list(counts.items())[:5])
        more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
        label = f"{number_of(reference(ctx)):,} reference samples against {some}{more}"
        notice(inputs, "sets", types.Notice, label)


def reference(ctx: foo.ExecutionContext) -> SampleCollection:
    """The reference that the form names; raises a ValueError if it names none, or an empty one."""
    chosen = given(ctx, "reference", Text(), next(iter(set_choices(ctx.dataset)), ""))
    view = named_set(ctx.dataset, chosen, "reference")
    checks.check_collection(view, "The reference")
    return view


def scenarios(ctx: foo.ExecutionContext) -> dict[str, SampleCollection]:
    """The sets that are compared with the reference, by name.

    Raises:
        ValueError: if there are none, or too many
    """
    others, first = given(ctx, "others", Text(), REST), reference(ctx)
    if others not in (REST, VIEWS) and not others.startswith(VALUES):
        return {others.partition(":")[2]: named_set(ctx.dataset, others, "set")}
    samples = without(one_slice(target_view(ctx)), first)
    if others == REST:
        found = {"other": samples}
    elif others == VIEWS:
        chosen = given(ctx, "reference", Text(), next(iter(set_choices(ctx.dataset)), ""))
        names = [name for name in ctx.dataset.list_saved_views() if f"view:{name}" != chosen]
        found = {name: ctx.dataset.load_saved_view(name) for name in names}
    else:
        found = _by_value(samples, others.removeprefix(VALUES))
    found = {name: view for name, view in found.items() if number_of(view)}
    if not found:
        raise ValueError("There is nothing to compare: no sample is left besides the reference.")
    return found


def _by_value(samples: SampleCollection, name: str) -> dict[str, SampleCollection]:
    if name not in naming_fields(samples._dataset):
        raise ValueError(f"The samples have no field {shown(name)} whose values part them.")
    label = checks.is_classification_field(samples, name)
    path = f"{name}.label" if label else name
    values = samples.distinct(path)
    if len(values) > MOST_SCENARIOS:
        raise ValueError(
            f"The field {name!r} has {len(values):,} values, and at most {MOST_SCENARIOS} are compared one by one: "
            "choose another field, or save views of what is to be compared."
        )
    return {str(value): samples.match({path: value}) for value in values}


def _choose_roles(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    asked = ASKED["image"]
    inputs.bool("image", default=True, label=asked.label, view=types.CheckboxView())
    names = checks.text_fields(ctx.dataset)
    for name in TEXT_FIELDS:
        choices = or_none(names)
        field = inputs.enum(
            name,
            list(choices),
            default=NONE,
            label=ASKED[name].label,
            description=ASKED[name].hint,
            view=dropdown(choices, space=4),
        )
        chosen = named(ctx, name)
        if chosen is not None:
            passes(field, checks.check_text_field, ctx.dataset, chosen)


def _choose_embeddings(ctx: foo.ExecutionContext, inputs: types.Object) -> None:
    fields = embedding_fields(ctx.dataset)
    choices = or_none(fields)
    for role in ROLES:
        default = next((field for field in fields if role in field), NONE)
        field = inputs.enum(
            f"{role}_embeddings",
            list(choices),
            default=default,
            label=f"Embeddings of the {role}s" if role != "query" else "Embeddings of the queries",
            view=dropdown(choices, space=6),
        )
        chosen = named(ctx, f"{role}_embeddings")
        if chosen is not None:
            passes(field, checks.check_field, ctx.dataset, chosen)


def sdk_arguments(ctx: foo.ExecutionContext) -> dict[str, Any]:
    """The form's values as arguments of :func:`fiftyone_ecif.compute_shift`, but for the sets."""
    asked = {name: each.kind for name, each in ASKED.items() if name not in ("model", "pretrained", "device")}
    arguments = {name: given(ctx, name, kind) for name, kind in asked.items() if name not in TEXT_FIELDS}
    arguments |= {name: named(ctx, name) for name in TEXT_FIELDS}
    arguments["image"] = given(ctx, "image", Flag(), True)
    if uses_embeddings(ctx):
        stored = {role: named(ctx, f"{role}_embeddings") for role in ROLES}
        arguments["embeddings"] = {
            role: name for role, name in stored.items() if name is not None and (role != "image" or arguments["image"])
        }
    else:
        arguments |= named_model(ctx)
    device = given(ctx, "device", ASKED["device"].kind, AUTO)
    arguments["device"] = None if device == AUTO else device
    arguments = {name: value for name, value in arguments.items() if value is not None}
    return {"run_key": proposed_run_key(ctx.dataset, RUN_KEY)} | arguments
