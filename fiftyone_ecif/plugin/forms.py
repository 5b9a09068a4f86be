"""The pieces that several forms are made of.

The App renders the words of notices as Markdown, and values, errors, choices and table cells as plain text. What comes
from the data (names, captions, reasons) is not markup, so :func:`notice` escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection
from fiftyone.core.media import GROUP

import fiftyone_ecif as ecif
from fiftyone_ecif.dataset.arguments import PROBABILITY, Kind, Text
from fiftyone_ecif.dataset.fields import FIELDS
from fiftyone_ecif.dataset.repair.review import SUSPECTED
from fiftyone_ecif.dataset.run.config import check_any_run, check_run, run_methods, stored_results
from fiftyone_ecif.dataset.samples import everything, ungrouped


class Known(NamedTuple):
    """The runs that an operator is about."""

    keys: Callable[[fo.Dataset], list[str]]  # oldest first
    check: Callable[[fo.Dataset, str], None]  # raises a ValueError if there is none of this key


ECIF_RUNS = Known(ecif.list_runs, check_run)
ALL_RUNS = Known(lambda dataset: list(run_methods(dataset)), check_any_run)

NO_RUN = ("This dataset has no run yet.", "Use “ECIF: compute influence” first.")


NONE = "none"
"""What stands for no choice in a form."""


def counted(number: int, noun: str) -> str:
    """A number of things in words, such as "1 pair" or "1,200 pairs"."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int, noun: str) -> str:
    """A noun as it is written after a number; its plural ends in s."""
    return noun if number == 1 else f"{noun}s"


def dropdown(choices: Mapping[str, str] | Iterable[str], **options: Any) -> types.DropdownView:
    """A dropdown of values with their labels, or of values that are their own labels."""
    view = types.DropdownView(**options)
    labels = choices if isinstance(choices, Mapping) else {value: value for value in choices}
    for value, label in labels.items():
        view.add_choice(value, label=label)
    return view


def notice(
    inputs: types.Object, name: str, kind: type[types.View], label: str, description: str = ""
) -> types.Property:
    """Add a notice whose words are shown as they stand; ``kind`` is types.Notice, Success, Warning or Error."""
    return inputs.view(name, kind(label=escaped(label), description=escaped(description)))


def escaped(text: str) -> str:
    """A text that Markdown shows as it stands."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)  # Markdown lets every ASCII punctuation mark be escaped


def refuse(inputs: types.Object, name: str, label: str, description: str = "") -> None:
    """Say why the form cannot be executed, and block it, in the App and in scripts."""
    invalidate(notice(inputs, name, types.Warning, label, description), f"{label} {description}".strip())


def say_count(inputs: types.Object, name: str, count: int, some: str, none: str, description: str = "") -> None:
    """Say how many samples the form is about, in the words ``some``, or refuse it with ``none`` if there are none."""
    if count:
        notice(inputs, name, types.Notice, some, description)
    else:
        refuse(inputs, name, none)


def invalidate(field: types.Property, reason: str) -> None:
    """Mark a field's value as wrong, with the reason below it."""
    field.invalid = True
    field.error_message = reason


def passes(field: types.Property, check: Callable[..., object], *args: Any) -> bool:
    """Whether ``check(*args)`` raises no ValueError; if it raises one, its words are shown below the field."""
    try:
        check(*args)
    except ValueError as error:
        invalidate(field, str(error))
        return False
    return True


def given(ctx: foo.ExecutionContext, name: str, kind: Kind, default: Any = None, called: str = "") -> Any:
    """What an operator or an event was told; everything that callers pass is read here.

    Args:
        ctx: of the operator or the panel
        name: of the parameter
        kind: what it may be
        default: what stands for a value that is left out, which an empty text means too
        called: what a form calls it, for the message; empty for its name

    Raises:
        ValueError: if the value cannot serve
    """
    value = ctx.params.get(name)
    return default if value is None or (isinstance(value, str) and not value) else kind(called or name, value)


def named(ctx: foo.ExecutionContext, name: str) -> str | None:
    """What a choice of :func:`or_none` names; None where it names nothing."""
    chosen: str = given(ctx, name, Text(), NONE)
    return None if chosen == NONE else chosen


def or_none(names: Iterable[str]) -> dict[str, str]:
    """The choices among names, and none of them first: a dropdown whose choice is empty would look as if it failed."""
    return {NONE: "None"} | {name: name for name in names}


def compare_cost(ctx: foo.ExecutionContext, inputs: types.Object, run_key: str, step: str) -> None:
    """Say how long a step of the run took that does about the same work."""
    seconds = stored_results(ctx.dataset, run_key).timings.get(step)
    if seconds:
        words = f"This takes about as long as the run's step “{step}”, which took {duration(seconds)}."
        notice(inputs, "cost", types.Notice, words, "It needs no more memory than the run did.")


def duration(seconds: float) -> str:
    """A time in words."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return "a second" if seconds < 1.5 else f"{seconds:.0f} seconds"


def chosen_run(ctx: foo.ExecutionContext, known: Known = ECIF_RUNS) -> str:
    """The run that the form names; the newest if it names none; raises a ValueError if there is no such run."""
    named = given(ctx, "run_key", Text())
    if named is not None:
        known.check(ctx.dataset, named)
        return named
    runs = known.keys(ctx.dataset)
    if not runs:
        raise ValueError(" ".join(NO_RUN))
    return runs[-1]


def choose_run(ctx: foo.ExecutionContext, inputs: types.Object, known: Known = ECIF_RUNS) -> str | None:
    """Add the choice among the dataset's runs, newest first; refuse the form if there is none.

    Returns:
        the run that is chosen at the moment; None if none is
    """
    runs = known.keys(ctx.dataset)[::-1]
    if not runs:
        refuse(inputs, "no_runs", *NO_RUN)
        return None
    labels = {key: f"{key} ({ctx.dataset.get_run_info(key).timestamp:%Y-%m-%d %H:%M})" for key in runs}
    field = inputs.enum("run_key", runs, default=runs[0], label="Run", view=dropdown(labels))
    return chosen_run(ctx, known) if passes(field, chosen_run, ctx, known) else None


def choose_samples(ctx: foo.ExecutionContext, inputs: types.Object, action: str) -> SampleCollection:
    """Add the choice between selection, view and dataset, or say that the open sample is meant.

    Args:
        ctx: of the operator
        inputs: the form
        action: the verb before "the current view"

    Returns:
        the samples that are chosen at the moment
    """
    if ctx.current_sample:
        notice(inputs, "open_sample", types.Notice, "This applies to the open sample.")
    else:
        inputs.view_target(ctx, action_description=action)
    return chosen_samples(ctx)


def chosen_samples(ctx: foo.ExecutionContext) -> SampleCollection:
    """The samples that an operator acts on: the open one, else the form's choice, else the smallest there is."""
    if ctx.current_sample:
        return everything(ctx.dataset).select(ctx.current_sample)
    target = ctx.params.get("view_target") or ctx.request_params.get("view_target")
    if ctx.selected and target in (None, "", "SELECTED_SAMPLES"):
        return ungrouped(ctx.view).select(ctx.selected)
    return target_view(ctx)


def target_view(ctx: foo.ExecutionContext) -> SampleCollection:
    """The samples that the form's choice names; raises a ValueError if it names none."""
    try:
        return ctx.target_view()
    except (AttributeError, KeyError, TypeError) as error:  # of a view that a script describes
        raise ValueError(f"The samples to work on cannot be found: {error!r}.") from error


def one_slice(samples: SampleCollection) -> SampleCollection:
    """The collection itself; of a grouped one the slice that the App shows, for what must not take several."""
    grouped = samples.media_type == GROUP and not samples._is_dynamic_groups
    return samples.select_group_slices(samples.group_slice) if grouped else samples


def chosen_threshold(ctx: foo.ExecutionContext) -> float:
    """The least misalignment of a suspect that the form names; raises a ValueError if it is no probability."""
    return given(ctx, "threshold", PROBABILITY, SUSPECTED, "The minimum probability")


def as_text(value: Any) -> str | None:
    """A caption or label as it is shown; the database may hold what is no text."""
    return value if value is None else str(value)


def show_fields(ctx: foo.ExecutionContext, run_key: str, score: str = "misalignment") -> Any:
    """Show a run's captions, a score and suggestions on the thumbnails, and return the message to the App."""
    text_field = ctx.dataset.get_run_info(run_key).config.text_field
    shown = [text_field, FIELDS[score].name(run_key), FIELDS["suggestion"].name(run_key)]
    return ctx.ops.set_active_fields([name for name in shown if name])
